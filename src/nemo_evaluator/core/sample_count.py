"""Counting the records of `samples.jsonl` while they are written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from nemo_evaluator.files import open_regular

READ_BYTES = 8 * 1024 * 1024
"""So much is read at once, unless a line is longer: the run must not wait for its watcher."""

_STEP_BYTES = 64 * 1024


@dataclass(slots=True)
class SampleCount:
    """What a file of records holds; made before the run begins, so that it knows what earlier starts left.

    Of the records of earlier starts only the scored ones count: what failed is asked again.
    """

    path: Path
    done: int = 0
    """Scored or failed."""
    failed: int = 0
    kept: int = 0
    """Of those done, the ones of earlier starts."""
    _sums: dict[str, float] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _file: int = 0
    _position: int = 0
    _former_end: int = 0
    _reads: int = READ_BYTES

    def __post_init__(self) -> None:
        try:
            with os.fdopen(open_regular(self.path), "rb") as file:
                self._file = os.fstat(file.fileno()).st_ino
                self._former_end = _end_of_lines(file)
        except OSError:
            return

    @property
    def mean_scores(self) -> dict[str, float]:
        """Mean of each score over the scored samples."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def update(self) -> bool:
        """Count what has been added; returns whether there is more to read at once."""
        try:
            descriptor = open_regular(self.path)
        except OSError:
            return False
        try:
            found = os.fstat(descriptor)
            if found.st_ino != self._file or found.st_size < self._position:
                self._start_over(found.st_ino)
            data = os.pread(descriptor, self._reads, self._position)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return self._take(data)

    def _start_over(self, file: int) -> None:
        # The engine puts the file in order at its end: what it holds then are the records of the whole run.
        self._file, self._position = file, 0
        self._former_end = self.done = self.failed = self.kept = 0
        self._sums, self._counts = {}, {}

    def _take(self, data: bytes) -> bool:
        # What follows the last newline is read again with its rest: a start that goes on cuts what a crash left of a
        # line.
        *lines, _ = data.split(b"\n")
        for line in lines:
            self._count(line, former=self._position < self._former_end)
            self._position += len(line) + 1
        is_full = len(data) == self._reads
        if is_full and not lines:
            self._reads *= 2
        return is_full

    def _count(self, line: bytes, *, former: bool) -> None:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        if not isinstance(record, dict):
            return
        failed = record.get("status") == "failed"
        if former and failed:
            return
        self.done += 1
        self.failed += failed
        self.kept += former
        scores = record.get("scores")
        if not failed and isinstance(scores, dict):
            self._add(scores)

    def _add(self, scores: Mapping[str, Any]) -> None:
        for name, score in scores.items():
            if isinstance(score, int | float):
                self._sums[name] = self._sums.get(name, 0.0) + score
                self._counts[name] = self._counts.get(name, 0) + 1


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line ends; what a crash left after it is not going to stay."""
    start = file.seek(0, os.SEEK_END)
    while start > 0:
        end, start = start, max(0, start - _STEP_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
    return 0
