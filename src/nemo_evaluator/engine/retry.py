"""When and after how long a failed request is sent again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

FIRST_PAUSE = 0.5
"""Seconds; upper limit of the pause before the second attempt, doubled for each further one."""
LONGEST_PAUSE = 30.0
LONGEST_RETRY_AFTER = 60.0
"""Seconds; a server that asks for more is asked again after this."""

_RETRIED = frozenset({408, 409, 425, 429})
_FATAL = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405, 407})

FailureKind = Literal["http", "connection", "timeout", "malformed", "too_large", "tls", "scoring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no answer."""

    kind: FailureKind
    message: str
    status: int | None = None
    """HTTP status, where there was one."""
    retry_after: float | None = None
    """Seconds that the server asked to wait."""
    is_last: bool = False
    """Whether the server asked not to be asked again (`x-should-retry: false`): it has repeated the request itself."""

    @property
    def retryable(self) -> bool:
        """Whether the same request is worth being sent again."""
        return self._may_pass and not self.is_last

    @property
    def _may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        if self.kind == "http":
            return self.status is not None and (self.status in _RETRIED or self.status >= 500)  # noqa: PLR2004  server errors
        return self.kind in {"connection", "timeout", "malformed"}

    @property
    def fatal(self) -> bool:
        """Whether all other requests will fail in the same way: wrong key, wrong address, wrong certificate."""
        return self.kind == "tls" or (self.kind == "http" and self.status in _FATAL)

    @property
    def of_endpoint(self) -> bool:
        """Whether it says something about the endpoint, rather than about this request or its scorer."""
        return self.fatal or self._may_pass


def pause_before_retry(attempt: int, failure: Failure, draw: random.Random) -> float:
    """Seconds to wait after the failed `attempt` (from 1).

    Full jitter over an exponentially growing range, so that requests that failed together do not come back together
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015); `Retry-After` is the least.
    """
    jitter = draw.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt - 1, 16)))
    if failure.retry_after is None:
        return jitter
    # Some of the jitter on top: all who were told the same time must not return in the same instant.
    return min(failure.retry_after, LONGEST_RETRY_AFTER) + min(jitter, 1.0)


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a `Retry-After` header, which holds seconds or a date (RFC 9110, 10.2.3); None when it says nothing.

    Negative, endless and unreadable values say nothing.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _seconds_until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return math.nan
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
