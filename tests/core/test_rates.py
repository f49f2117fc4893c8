from __future__ import annotations

import pytest

from nemo_evaluator.core.rates import MOST_POINTS, RecentRate


def noted(*points: tuple[float, float]) -> RecentRate:
    rate = RecentRate()
    for moment, count in points:
        rate.add(moment, count)
    return rate


def test_nothing_is_known_at_first() -> None:
    assert (noted().recent, noted().overall, noted().seconds) == (0.0, 0.0, 0.0)
    assert noted((5, 3)).recent == 0.0


def test_a_steady_rate_is_that_rate() -> None:
    rate = noted(*((second, 4 * second) for second in range(200)))

    assert rate.recent == pytest.approx(4)
    assert rate.overall == pytest.approx(4)


def test_the_recent_rate_follows_a_change_and_the_overall_one_remembers() -> None:
    fast = [(second, 100 * second) for second in range(100)]
    rate = noted(*fast, *((100 + second, 10_000 + second) for second in range(100)))

    assert rate.recent == pytest.approx(1, rel=0.05)
    assert rate.overall > 49


def test_rare_events_are_looked_at_over_a_longer_time() -> None:
    # One answer in a minute and a half: the last minute alone would say either nothing or too much.
    rate = noted(*((second, second // 90) for second in range(4000)))

    assert rate.recent == pytest.approx(1 / 90, rel=0.15)


def test_a_long_silence_costs_no_memory() -> None:
    rate = noted(*((second, 0) for second in range(20_000)))

    assert len(rate._points) <= MOST_POINTS + 1
    assert rate.recent == 0.0


def test_a_counter_that_starts_over_starts_over() -> None:
    rate = noted((0, 100), (10, 200), (11, 0), (21, 10))

    assert rate.recent == pytest.approx(1)
