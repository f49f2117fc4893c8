"""Heads of the endpoint's answers: what they say, and which of it the harness gets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from multidict import CIMultiDict, istr

from nemo_evaluator.adapters.messages import HOP_BY_HOP, media_type

LARGEST_HEAD = 64 * 1024
"""Most bytes of a head, interim answers before it included."""

_WITHOUT_BODY = (204, 304)
_SPECIAL = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})

Kind = Literal["json", "events", "other"]


class BadHeadError(Exception):
    """A head that says how long its body is in a way that cannot be read."""


class AnswerHead:
    """The head of one answer.

    Attributes:
        status: such as 200.
        reason: the phrase after it.
        headers: those that do not concern the connection.
        kind: how the body is to be read.
        length: bytes of the body as announced; None when they are not.
        ends_with_connection: whether only the end of the connection tells where the body ends.
        keep_alive: the `Keep-Alive` header; None when there is none.
    """

    __slots__ = ("ends_with_connection", "headers", "keep_alive", "kind", "length", "reason", "status")

    def __init__(self, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """Read it.

        Args:
            status: as the parser found it.
            reason: likewise.
            fields: name and value of each header line, as on the wire.

        Raises:
            BadHeadError: the body has a transfer coding other than `chunked`.
        """
        self.status = status
        self.reason = reason.decode("latin-1")
        self.length: int | None = None
        self.keep_alive: str | None = None
        is_chunked = False
        kept: list[tuple[str, str]] = []
        named = ""
        for raw_name, raw_value in fields:
            name, special = _known(raw_name)
            # Latin-1 keeps every byte, in both directions; the parser leaves blanks at the end.
            value = raw_value.decode("latin-1").strip(" \t")
            if special is None:
                kept.append((name, value))
            elif special == "content-length":
                self.length = int(value)
                kept.append((name, value))
            elif special == "transfer-encoding":
                is_chunked = _is_chunked(value)
            elif special == "keep-alive":
                self.keep_alive = value
            elif special == "connection":
                named = f"{named},{value}"
        self.headers = CIMultiDict(kept)
        if named:
            _drop_named(self.headers, named.lower())
        self.ends_with_connection = self.length is None and not is_chunked and status not in _WITHOUT_BODY
        self.kind = kind_of(self.headers.get(_CONTENT_TYPE, ""))


_CONTENT_TYPE = istr("Content-Type")


@lru_cache(maxsize=1024)
def _known(raw_name: bytes) -> tuple[istr, str | None]:
    """A name as text, and None when the header goes on, else what it is to be looked at for; "" for nothing."""
    name = raw_name.decode("latin-1")
    lower = name.lower()
    if lower in _SPECIAL:
        return istr(name), lower
    return istr(name), "" if lower in HOP_BY_HOP else None


def _is_chunked(value: str) -> bool:
    coding = value.lower()
    if coding not in ("chunked", "identity"):
        raise BadHeadError(f"its transfer coding {value[:40]!r} cannot be read")
    return coding == "chunked"


def _drop_named(headers: CIMultiDict[str], connection: str) -> None:
    """Drop the headers that the `Connection` header names (RFC 9110, 7.6.1)."""
    for name in connection.split(","):
        headers.popall(name.strip(), None)


@lru_cache(maxsize=256)
def kind_of(content_type: str) -> Kind:
    """How a body with this `Content-Type` is to be read."""
    kind = media_type({"Content-Type": content_type})
    if kind == "application/json" or kind.endswith("+json"):
        return "json"
    return "events" if kind == "text/event-stream" else "other"
