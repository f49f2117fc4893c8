from __future__ import annotations

import pytest

from nemo_evaluator.core.report.timeline import INTERVALS, Timeline


def _timeline(*points: tuple[int, float, bool]) -> Timeline:
    timeline = Timeline()
    for start, time, usable in points:
        timeline.add(start, time, is_usable=usable, tokens=10, cost=0.5)
    return timeline


def test_every_request_is_in_one_interval() -> None:
    timeline = _timeline((1, 100.0, True), (1, 100.4, False), (1, 101.5, True), (1, 160.0, True))

    intervals = timeline.intervals()

    assert timeline.width == 1.0
    assert [(one.answered, one.failed) for one in intervals[:3]] == [(1, 1), (1, 0), (0, 0)]
    assert [one.tokens for one in intervals] == [20, 10, *[0] * 58, 10]
    assert [one.cost for one in intervals] == [1.0, 0.5, *[0.0] * 58, 0.5]


def test_the_time_between_two_starts_is_left_out() -> None:
    timeline = _timeline((1, 0.0, True), (1, 40.0, True), (2, 90_000.0, True), (2, 90_020.0, True))

    assert timeline.seconds == 60.0
    assert [one.answered for one in timeline.intervals()] == [1, *[0] * 39, 2, *[0] * 19, 1]


@pytest.mark.parametrize("seconds", [0.0, 1.0, 59.0, 60.0, 61.0, 5_000.0, 86_400.0, 30 * 86_400.0])
def test_a_run_of_any_length_has_few_intervals_and_loses_nothing(seconds: float) -> None:
    timeline = _timeline(*((1, seconds * part / 99, True) for part in range(100)))

    intervals = timeline.intervals()

    assert len(intervals) <= INTERVALS + 1
    assert sum(one.answered for one in intervals) == 100
