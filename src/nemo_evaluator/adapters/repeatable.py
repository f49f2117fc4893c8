"""What a failed exchange says about whether asking again can help."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Literal

from nemo_evaluator.adapters.failures import SHOULD_RETRY, UpstreamFailure
from nemo_evaluator.adapters.messages import Response, TooLargeError, decode
from nemo_evaluator.adapters.usable import parse_json

Kind = Literal["unreachable", "broken", "unusable", "late", "final"]
"""`unreachable`: no connection was made, so nothing was sent. `broken`: it ended before the answer did. `unusable`: the
answer is cut or cannot be unpacked. `late`: none came in time. `final`: asking again would fail again."""

_KINDS: dict[str, Kind] = {
    "connect_timeout": "unreachable",
    "connection_failed": "broken",
    "stream_cut": "unusable",
    "unreadable_answer": "unusable",
    "timeout": "late",
}

_NO_CONNECTION = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOENT,
    }
)
_LONGEST_CHAIN = 8

_OUT_OF_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
"""Codes of OpenAI's API (its guide to error codes) for what waiting does not mend."""

_LARGEST_ERROR = 1024 * 1024


def kind_of_failure(failure: UpstreamFailure) -> Kind:
    """What kind of failure it is, by its code, and by the error of the network below it."""
    kind = _KINDS.get(failure.code, "final")
    if kind == "broken":
        for cause in _causes(failure):
            if isinstance(cause, ssl.SSLCertVerificationError):
                return "final"
            if isinstance(cause, socket.gaierror) or (isinstance(cause, OSError) and cause.errno in _NO_CONNECTION):
                return "unreachable"
    return kind


def is_final_word(response: Response) -> bool:
    """Whether an answer of failure, read whole, says that asking again is useless: by `x-should-retry: false`, which
    OpenAI's own clients heed, or because the account has nothing left.
    """  # noqa: D205  one sentence, too long for one line
    if response.headers.get(SHOULD_RETRY, "").strip().lower() == "false":
        return True
    if not isinstance(response.body, bytes):
        return False
    try:
        document = parse_json(decode(response.body, response.headers.get("Content-Encoding", ""), limit=_LARGEST_ERROR))
    except (TooLargeError, ValueError):
        return False
    error = document.get("error") if isinstance(document, dict) else None
    return isinstance(error, dict) and not _OUT_OF_QUOTA.isdisjoint(
        value for value in (error.get("code"), error.get("type")) if isinstance(value, str)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to `error`, from the outside in; a few links, as chains may be circular."""
    cause = error.__cause__ or error.__context__
    for _ in range(_LONGEST_CHAIN):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__
