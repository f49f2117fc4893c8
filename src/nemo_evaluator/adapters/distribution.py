"""How numbers are spread, in constant memory: a histogram whose classes grow by a fixed factor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_PER_OCTAVE = 8
_LEAST_CLASS = -20 * _PER_OCTAVE
_LEAST_VALUE = 2.0 ** (_LEAST_CLASS / _PER_OCTAVE)
_LARGEST_CLASS = 40 * _PER_OCTAVE


@dataclass(frozen=True, slots=True)
class Distribution:
    """A snapshot of a `Histogram`.

    Attributes:
        counts: how many values were in each class; class `c` reaches from `bounds(c)[0]` to `bounds(c)[1]`.
        count: how many values there were.
        sum: of all values.
        max: the largest.
    """

    counts: Mapping[int, int] = field(default_factory=dict)
    count: int = 0
    sum: float = 0.0
    max: float = 0.0

    @property
    def mean(self) -> float | None:
        """None without values."""
        return self.sum / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The value that `share` of all values (0 to 1) do not exceed, at most 5 % off; None without values."""
        if not self.count:
            return None
        needed = max(1, math.ceil(share * self.count))
        seen = 0
        for number in sorted(self.counts):
            seen += self.counts[number]
            if seen >= needed:
                low, high = bounds(number)
                return min(math.sqrt(low * high), self.max)
        return self.max

    def merged(self, others: Iterable[Distribution]) -> Distribution:
        """This one and `others` as one."""
        every = [self, *others]
        counts: dict[int, int] = {}
        for one in every:
            for number, count in one.counts.items():
                counts[number] = counts.get(number, 0) + count
        return Distribution(
            counts, sum(one.count for one in every), sum(one.sum for one in every), max(one.max for one in every)
        )


class Histogram:
    """Counts values of 0 and above; eight classes to each doubling, from a millionth to a billion."""

    __slots__ = ("_counts", "_max", "_sum", "_total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._sum = 0.0
        self._max = 0.0
        self._total = 0

    def add(self, value: float) -> None:
        """Count `value`; one below zero counts as zero."""
        number = class_of(value)
        self._counts[number] = self._counts.get(number, 0) + 1
        self._total += 1
        self._sum += value
        if value > self._max:  # noqa: PLR1730  a call of `max` for each answer costs more
            self._max = value

    def frozen(self) -> Distribution:
        """The state of this moment."""
        return Distribution(dict(self._counts), self._total, self._sum, self._max)


def class_of(value: float) -> int:
    """The number of the class that `value` falls into."""
    if value < _LEAST_VALUE:
        return _LEAST_CLASS
    return min(math.floor(math.log2(value) * _PER_OCTAVE), _LARGEST_CLASS)


def bounds(number: int) -> tuple[float, float]:
    """The least value of a class, and the least of the next one."""
    return 2.0 ** (number / _PER_OCTAVE), 2.0 ** ((number + 1) / _PER_OCTAVE)
