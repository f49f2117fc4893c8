"""How fast something that only grows has grown lately."""

from __future__ import annotations

from collections import deque

LEAST_SECONDS = 60.0
"""A recent rate looks back at least so far, where there is so much."""
LEAST_EVENTS = 10
"""And over at least so many events: models that think for minutes answer rarely, and many at once."""
MOST_POINTS = 512


class RecentRate:
    """The rate of a counter over its recent past."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()

    def add(self, moment: float, count: float) -> None:
        """Note that the counter stood at `count` at `moment`, in seconds of a monotonic clock."""
        if self._points and count < self._points[-1][1]:
            self._points.clear()
        if not self._points:
            self._first = (moment, count)
        self._points.append((moment, count))
        while len(self._points) > 2 and self._is_enough(self._points[1]):  # noqa: PLR2004  the two ends
            self._points.popleft()
        if len(self._points) > MOST_POINTS:
            self._points = deque([*list(self._points)[::2], self._points[-1]])

    def _is_enough(self, point: tuple[float, float]) -> bool:
        last = self._points[-1]
        return last[0] - point[0] >= LEAST_SECONDS and last[1] - point[1] >= LEAST_EVENTS

    @property
    def recent(self) -> float:
        """Per second, of late; 0 before two notes."""
        return _slope(self._points[0], self._points[-1]) if self._points else 0.0

    @property
    def overall(self) -> float:
        """Per second since the first note."""
        return _slope(self._first, self._points[-1]) if self._points else 0.0

    @property
    def seconds(self) -> float:
        """How long it has been noted."""
        return self._points[-1][0] - self._first[0] if self._points else 0.0

    @property
    def grown(self) -> float:
        """How much the counter has grown since the first note."""
        return self._points[-1][1] - self._first[1] if self._points else 0.0


def _slope(first: tuple[float, float], last: tuple[float, float]) -> float:
    seconds = last[0] - first[0]
    return (last[1] - first[1]) / seconds if seconds > 0 else 0.0
