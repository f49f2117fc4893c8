"""Many numbers as a few bars."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

BARS = 24
_NICE = (1, 2, 2.5, 5, 10)
_FAR_OUT = 2.0
_LEAST, _MOST = 1e-9, 1e18
"""What is outside of these is nothing that was measured; the first bar takes what is below."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in bars of equal width from 0; the last bar holds all above `top` when `open_ended`."""

    counts: tuple[int, ...]
    top: float
    open_ended: bool
    count: int
    median: float
    p95: float
    greatest: float
    left_out: int = 0
    """Values that nothing measured can be: negative, endless, or no numbers at all."""


def histogram(values: array[float]) -> Histogram | None:
    """The histogram of `values`; None when there are none that can be."""
    ordered = sorted(value for value in values if 0 <= value <= _MOST)
    if not ordered:
        return None
    greatest, p99 = ordered[-1], _quantile(ordered, 0.99)
    # A few values far out must not press all others into one bar.
    open_ended = greatest > _FAR_OUT * p99 > 0
    top = _ceiling(p99 if open_ended else greatest)
    bars = BARS - open_ended
    counts = [0] * bars
    above = 0
    for value in ordered:
        if value > top:
            above += 1
        else:
            counts[min(bars - 1, int(value / top * bars))] += 1
    return Histogram(
        counts=(*counts, above) if open_ended else tuple(counts),
        top=top,
        open_ended=open_ended,
        count=len(ordered),
        median=_quantile(ordered, 0.5),
        p95=_quantile(ordered, 0.95),
        greatest=greatest,
        left_out=len(values) - len(ordered),
    )


def _quantile(ordered: list[float], q: float) -> float:
    """The smallest value that at least the share `q` of all does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def _ceiling(value: float) -> float:
    """The next round number at or above `value`."""
    if value < _LEAST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in _NICE if step * power >= value), 10 * power)
