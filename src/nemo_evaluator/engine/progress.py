"""How far a run is, told to whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

SHORTEST_PAUSE = 0.1
"""Seconds between two reports at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a run at one moment; numbers count answers, so a sample asked four times counts four."""

    done: int
    """Scored or failed, those of earlier starts included."""
    kept: int
    """Of these, what earlier starts had scored."""
    planned: int
    failed: int
    score: float | None
    """Mean of the main metric over what was scored since this start; None before the first."""
    rate: float
    """Answers per second since this start."""


ProgressCallback = Callable[[Progress], None]


@dataclass(slots=True)
class ProgressMeter:
    """Counts, and calls back at most ten times a second."""

    planned: int
    done: int
    """What earlier starts had scored."""
    callback: ProgressCallback | None
    failed: int = 0
    _kept: int = field(init=False)
    _scored: int = 0
    _score_sum: float = 0.0
    _answered: int = 0
    _started: float = field(default_factory=time.monotonic)
    _reported: float = 0.0

    def __post_init__(self) -> None:
        self._kept = self.done

    def scored(self, score: float | None) -> None:
        """One answer was scored; `score` is its main metric."""
        if score is not None:
            self._scored += 1
            self._score_sum += score
        self._count()

    def failed_one(self) -> None:
        """One answer could not be had or judged."""
        self.failed += 1
        self._count()

    def _count(self) -> None:
        self.done += 1
        self._answered += 1
        if self.callback is not None and time.monotonic() - self._reported >= SHORTEST_PAUSE:
            self.report()

    def report(self) -> None:
        """Call back now."""
        self._reported = time.monotonic()
        if self.callback is None:
            return
        elapsed = self._reported - self._started
        self.callback(
            Progress(
                done=self.done,
                kept=self._kept,
                planned=self.planned,
                failed=self.failed,
                score=self._score_sum / self._scored if self._scored else None,
                rate=self._answered / elapsed if elapsed > 0 else 0.0,
            )
        )
