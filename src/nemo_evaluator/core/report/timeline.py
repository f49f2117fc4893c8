"""What happened when: requests, failures, tokens and cost in intervals of the time that a run was at work."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

INTERVALS = 60
_LAST_TIME = 253_402_300_800.0
"""The end of the year 9999: no clock shows more."""
_STEPS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Sums over one interval."""

    answered: int
    failed: int
    tokens: int
    cost: float


@dataclass(slots=True)
class Timeline:
    """Points in time, each with what ended then.

    The starts of an interrupted run are joined: the time between them, when nothing ran, is left out.
    """

    _times: dict[int, array[float]] = field(default_factory=dict)
    _usable: dict[int, bytearray] = field(default_factory=dict)
    _tokens: dict[int, array[int]] = field(default_factory=dict)
    _costs: dict[int, array[float]] = field(default_factory=dict)
    left_out: int = 0
    """Points whose time no clock can have shown."""

    def add(self, start: int, time: float, *, is_usable: bool, tokens: int, cost: float) -> None:
        """A request of the start number `start` ended at `time`, in seconds since the epoch."""
        if not 0 <= time < _LAST_TIME:
            self.left_out += 1
            return
        if start not in self._times:
            self._times[start], self._usable[start] = array("d"), bytearray()
            self._tokens[start], self._costs[start] = array("q"), array("d")
        self._times[start].append(time)
        self._usable[start].append(is_usable)
        self._tokens[start].append(tokens)
        self._costs[start].append(cost)

    @property
    def seconds(self) -> float:
        """The time at work: of each start from the end of its first request to that of its last."""
        return sum(max(times) - min(times) for times in self._times.values())

    @property
    def width(self) -> float:
        """Seconds of one interval: the smallest round number that leaves at most `INTERVALS` of them."""
        wanted = self.seconds / INTERVALS
        return float(next((step for step in _STEPS if step >= wanted), math.ceil(wanted)))

    def intervals(self) -> Sequence[Interval]:
        """The sums of each interval, in order."""
        width, offset = self.width, 0.0
        count = int(self.seconds // width) + 1
        answered, failed, tokens, costs = [0] * count, [0] * count, [0] * count, [0.0] * count
        for start in sorted(self._times):
            times = self._times[start]
            first = min(times)
            for time, usable, of_answer, cost in zip(
                times, self._usable[start], self._tokens[start], self._costs[start], strict=True
            ):
                place = min(count - 1, int((offset + time - first) // width))
                (answered if usable else failed)[place] += 1
                tokens[place] += of_answer
                costs[place] += cost
            offset += max(times) - first
        return [
            Interval(answered=one, failed=two, tokens=three, cost=four)
            for one, two, three, four in zip(answered, failed, tokens, costs, strict=True)
        ]
