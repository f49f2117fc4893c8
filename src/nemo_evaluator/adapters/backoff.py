"""How long to wait before an endpoint is asked again: as it says itself, else longer each time, and never in step."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_TOO_MANY_REQUESTS = 429
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LIMITED = ("requests", "tokens")


class Backoff:
    """Growing, randomly spread pauses: decorrelated jitter (M. Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015). Each pause is drawn between `base` and three times the one before, `longest` at most, so
    that even the first ones, and those at the limit, differ from each other.

    Args:
        base: seconds of the shortest pause.
        longest: seconds of the longest.
    """  # noqa: D205  the source belongs to the first sentence

    __slots__ = ("_base", "_last", "_longest")

    def __init__(self, base: float, longest: float) -> None:
        self._base = base
        self._longest = longest
        self._last = base

    def next(self) -> float:
        """Seconds of the next pause."""
        self._last = random.uniform(self._base, max(self._base, min(self._longest, 3 * self._last)))  # noqa: S311  it spreads load, it guards nothing
        return self._last


def asked_wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks its client to wait; None when it does not say.

    Read are, in this order: `retry-after-ms` (Azure OpenAI), `Retry-After` with seconds or a date (RFC 9110, 10.2.3),
    and of a 429 the times at which used-up limits are reset: `x-ratelimit-reset-requests` and `-tokens` (OpenAI's
    documentation of rate limits), `ratelimit-reset` (draft-ietf-httpapi-ratelimit-headers-07, section 3).

    Args:
        status: that of the answer.
        headers: its headers, whose names are found in any case.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    after = headers.get("Retry-After")
    if after is not None:
        seconds = _number(after)
        return _seconds_until(after, headers.get("Date")) if seconds is None else seconds
    return _reset_wait(headers) if status == _TOO_MANY_REQUESTS else None


def _reset_wait(headers: Mapping[str, str]) -> float | None:
    waits = [
        _duration(headers.get(f"x-ratelimit-reset-{what}"))
        for what in _LIMITED
        if _number(headers.get(f"x-ratelimit-remaining-{what}")) == 0
    ]
    if _number(headers.get("ratelimit-remaining")) == 0:
        waits.append(_number(headers.get("ratelimit-reset")))
    return max((wait for wait in waits if wait is not None), default=None)


def _number(text: str | None) -> float | None:
    """A finite number that is not negative, else None."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _duration(text: str | None) -> float | None:
    """Seconds of a text such as `6m0s` or `20ms`, or of a plain number."""
    if text is None or not _DURATION.fullmatch(text.strip()):
        return _number(text)
    return sum(float(amount) * _UNIT_SECONDS[unit] for amount, unit in _DURATION_PART.findall(text))


def _seconds_until(date: str, sent: str | None) -> float | None:
    """Seconds from the answer's own `Date` to `date`: the clocks of this machine and of the endpoint may differ."""
    moment = _moment(date)
    if moment is None:
        return None
    return max(0.0, (moment - (_moment(sent) or datetime.now(UTC))).total_seconds())


def _moment(date: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
