"""Statistics that are told now and then while a run goes on: by a line in the log, and by a file."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemo_evaluator.files import write_atomically

_log = logging.getLogger(__name__)


class PeriodicStats:
    """Counts answers, and tells what `make` returns after every so many of them.

    The file is written in a thread, one write at a time, so that no answer waits for a disk. A folder that cannot be
    written is said once; the run goes on without the file.

    Args:
        make: the statistics of the moment.
        summary: a line for the log about them.
        log_every: answers from one line to the next.
        path: the file; None for none.
        write_every: answers from one write to the next; None writes at the end only.
    """

    def __init__(
        self,
        make: Callable[[], Mapping[str, Any]],
        summary: Callable[[Mapping[str, Any]], str],
        *,
        log_every: int,
        path: Path | None,
        write_every: int | None,
    ) -> None:
        self._make = make
        self._summary = summary
        self._log_every = log_every
        self._path = path
        self._write_every = write_every
        self._answers = 0
        self._writing: asyncio.Future[None] | None = None

    def count(self) -> None:
        """There was one more answer; to be called in the event loop."""
        self._answers += 1
        if self._answers % self._log_every == 0:
            _log.info("%s", self._summary(self._make()))
        if self._write_every is not None and self._answers % self._write_every == 0:
            self._begin()

    async def close(self) -> None:
        """Write the last state."""
        if self._writing is not None:
            await self._writing
        if self._answers:
            self._begin()
        if self._writing is not None:
            await self._writing

    def _begin(self) -> None:
        if self._path is not None and (self._writing is None or self._writing.done()):
            loop = asyncio.get_running_loop()
            self._writing = loop.run_in_executor(None, self._write, self._path, dict(self._make()))

    def _write(self, path: Path, stats: Mapping[str, Any]) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, json.dumps(stats, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            self._path = None
            _log.warning("statistics cannot be written to %s: %s", path, error)
