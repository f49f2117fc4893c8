from __future__ import annotations

from statistics import mean, stdev

import pytest
from multidict import CIMultiDict

from nemo_evaluator.adapters.backoff import Backoff, asked_wait


@pytest.mark.parametrize("attempt", [0, 1, 2, 5, 20])
def test_pauses_of_one_attempt_differ_from_each_other(attempt: int) -> None:
    pauses = []
    for _ in range(2000):
        backoff = Backoff(0.5, 30)
        pauses.append([backoff.next() for _ in range(attempt + 1)][-1])
    assert stdev(pauses) / mean(pauses) > 0.2
    assert 0.5 <= min(pauses) <= max(pauses) <= 30


def test_pauses_grow() -> None:
    runs = [[backoff.next() for _ in range(6)] for backoff in (Backoff(0.5, 60) for _ in range(2000))]
    means = [mean(run[attempt] for run in runs) for attempt in range(6)]
    assert means == sorted(means)
    assert means[5] > 5 * means[0]


def test_a_shortest_pause_that_is_the_longest_stands() -> None:
    backoff = Backoff(2, 2)
    assert [backoff.next() for _ in range(3)] == [2, 2, 2]


DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": DATE}, 30),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": DATE}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After-Ms": "250", "Retry-After": "1"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2.5s"}, 62.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "120ms"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "later"}, None),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "9"}, 9),
    ],
)
def test_what_an_endpoint_asks_for_is_read(headers: dict[str, str], expected: float | None) -> None:
    assert asked_wait(429, CIMultiDict(headers)) == (None if expected is None else pytest.approx(expected))


def test_limits_that_are_used_up_matter_to_refusals_only() -> None:
    headers = CIMultiDict({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "60s"})
    assert asked_wait(500, headers) is None
    assert asked_wait(500, CIMultiDict({"Retry-After": "2"})) == 2
