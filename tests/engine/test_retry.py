from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from nemo_evaluator.engine.retry import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    Failure,
    FailureKind,
    parse_retry_after,
    pause_before_retry,
)


def http(status: int, *, retry_after: float | None = None) -> Failure:
    return Failure(kind="http", status=status, message=f"HTTP {status}", retry_after=retry_after)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529, 599])
def test_passing_troubles_are_retried(status: int) -> None:
    assert http(status).retryable
    assert not http(status).fatal


@pytest.mark.parametrize("status", [400, 402, 410, 413, 422])
def test_refusals_of_one_request_are_neither_retried_nor_fatal(status: int) -> None:
    assert not http(status).retryable
    assert not http(status).fatal
    assert not http(status).of_endpoint


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 405])
def test_refusals_of_all_requests_are_fatal(status: int) -> None:
    assert not http(status).retryable
    assert http(status).fatal


@pytest.mark.parametrize(
    ("kind", "retried"),
    [
        ("connection", True),
        ("timeout", True),
        ("malformed", True),
        ("too_large", False),
        ("tls", False),
        ("scoring", False),
    ],
)
def test_other_failures(kind: FailureKind, *, retried: bool) -> None:
    assert Failure(kind=kind, message="").retryable is retried


def test_pauses_grow_are_spread_and_stay_bounded() -> None:
    draw = random.Random(1)
    for attempt, upper in [(1, FIRST_PAUSE), (2, 2 * FIRST_PAUSE), (4, 8 * FIRST_PAUSE), (99, LONGEST_PAUSE)]:
        pauses = [pause_before_retry(attempt, http(500), draw) for _ in range(500)]

        assert 0 <= min(pauses) < 0.1 * upper
        assert 0.9 * upper < max(pauses) <= upper


def test_retry_after_is_the_least_and_is_capped() -> None:
    draw = random.Random(1)

    assert 7 <= pause_before_retry(1, http(429, retry_after=7), draw) <= 8
    assert LONGEST_RETRY_AFTER <= pause_before_retry(1, http(429, retry_after=86400), draw) <= LONGEST_RETRY_AFTER + 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("86400", 86400.0),
        (None, None),
        ("", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after_header(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    moment = datetime.now(UTC) + timedelta(seconds=100)

    seconds = parse_retry_after(format_datetime(moment, usegmt=True))
    assert seconds is not None
    assert 90 < seconds <= 100


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_the_server_repeated_itself_is_not_repeated_again(status: int) -> None:
    failure = Failure(kind="http", status=status, message="", is_last=True)

    assert not failure.retryable
    assert failure.of_endpoint
