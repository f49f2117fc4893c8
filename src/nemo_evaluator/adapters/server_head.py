"""Heads of HTTP/1.1 messages on the harness's side: what a request's says, and how an answer's is written.

Lines follow RFC 9112. The parser has refused line folding, bare CR and LF, control characters and contradicting
lengths before anything gets here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from nemo_evaluator.adapters.messages import HOP_BY_HOP, Response
from nemo_evaluator.adapters.sample_header import SAMPLE_HEADER

RawHeader = tuple[bytes, bytes]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SAMPLE = SAMPLE_HEADER.lower()
_SPECIAL = {
    "connection", "content-length", "expect", "host", "transfer-encoding", _SAMPLE, "x-samples-planned",
}  # fmt: skip
_KEPT_OPEN = ("keep-alive", "close")
_VERSIONS = ("1.1", "1.0")
_LONGEST_COUNT = 12
_FIRST_FINAL_STATUS, _LAST_STATUS = 200, 999
_NO_CONTENT, _NOT_MODIFIED = 204, 304


class HeadError(Exception):
    """A request's head that cannot be accepted: what it is answered with."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class UnsendableError(Exception):
    """A response that is none: its status or a header cannot stand on the wire."""


class Incoming:
    """A request of the harness while it is received.

    Attributes:
        method: such as `POST`.
        target: the request's target as received.
        headers: without those that concern one connection or the proxy itself.
        body: empty until all of it is there.
        length: the announced length of the body, in bytes; 0 when none is announced.
        sample: `X-Sample-Id`.
        planned: `X-Samples-Planned`.
        has_chunks: whether the client understands chunked answers (HTTP/1.1).
        expects_continue: whether the client waits for `100 Continue` before it sends the body.
        keeps_connection: whether another request may follow on the connection.
        refusal: status and text of the answer when it is not to be served at all.
    """

    __slots__ = (
        "body", "expects_continue", "has_chunks", "headers", "keeps_connection", "length", "method", "planned",
        "refusal", "sample", "target",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = ""
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.length = 0
        self.sample: str | None = None
        self.planned: int | None = None
        self.has_chunks = True
        self.expects_continue = False
        self.keeps_connection = False
        self.refusal: tuple[int, str] | None = None

    def read_head(self, headers: Sequence[RawHeader], *, version: str) -> None:
        """Take in the header lines.

        Args:
            headers: name and value of each line, in order.
            version: of HTTP, such as `1.1`.

        Raises:
            HeadError: the request cannot be served.
        """
        self.has_chunks = version == "1.1"
        kept = self.headers
        special = []
        for raw_name, raw_value in headers:
            name, kind = _known(raw_name)
            value = raw_value.decode("latin-1").rstrip(" \t")
            if kind is None:
                kept.append((name, value))
            elif kind:
                special.append((kind, value))
        self._read_special(special)
        if version not in _VERSIONS:
            raise HeadError(505, f"HTTP/{version} is not spoken here, HTTP/1.1 is")
        if self.method == "CONNECT":
            raise HeadError(405, "the proxy makes no tunnels; send the request to it")

    def _read_special(self, special: Sequence[tuple[str, str]]) -> None:
        hosts = 0
        for kind, value in special:
            if kind == "host":
                hosts += 1
                self.headers.append(("Host", value))
            elif kind == "content-length":
                self.length = int(value)
                self.headers.append(("Content-Length", value))
            elif kind == "connection":
                if value.lower() not in _KEPT_OPEN:
                    self._drop_named(value)
            elif kind == "transfer-encoding":
                # The last transfer coding must be `chunked`, and no other one is understood (RFC 9112, 6.1).
                if value.lower() != "chunked" or not self.has_chunks:
                    raise HeadError(400, "the request has a Transfer-Encoding that is not understood")
            else:
                self._read_told(kind, value)
        if hosts != 1 and (hosts or self.has_chunks):
            raise HeadError(400, "a request must have one Host header")

    def _read_told(self, kind: str, value: str) -> None:
        """What the client tells the proxy alone."""
        if kind == _SAMPLE:
            self.sample = value or None
        elif kind == "x-samples-planned":
            self.planned = _count(value)
        else:
            self.expects_continue = self.has_chunks and value.lower() == "100-continue"

    def _drop_named(self, connection: str) -> None:
        """Drop the headers that the `Connection` header names (RFC 9110, 7.6.1)."""
        named = {name.strip().lower() for name in connection.split(",")}
        self.headers = [(name, value) for name, value in self.headers if name.lower() not in named]


def _count(text: str) -> int | None:
    """The number that `text` is; None when it is none, or absurdly long."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_COUNT else None


@lru_cache(maxsize=128)
def _known(raw_name: bytes) -> tuple[str, str | None]:
    """A name as text, and None when the header goes on, "" when it ends here, else the name in lower case."""
    name = raw_name.decode("latin-1")
    lower = name.lower()
    if lower in _SPECIAL:
        return name, lower
    return name, "" if lower in HOP_BY_HOP else None


def has_body(response: Response, incoming: Incoming) -> bool:
    """Whether a body belongs to the answer (RFC 9112, 6.3)."""
    return incoming.method != "HEAD" and response.status not in (_NO_CONTENT, _NOT_MODIFIED)


def declared_length(response: Response) -> int | None:
    """Its `Content-Length`, when it has one that is a number."""
    values = set(response.headers.getall("Content-Length", ()))
    value = values.pop() if len(values) == 1 else ""
    return _count(value)


def answer_head(
    response: Response, incoming: Incoming, *, length: int | None = None, is_chunked: bool = False
) -> bytes:
    """The status line and the header lines, with the empty line at their end.

    Args:
        response: the answer.
        incoming: the request.
        length: bytes of the body; None when that is not known beforehand.
        is_chunked: whether the body is sent in chunks; without that and a length it ends with the connection.

    Raises:
        UnsendableError: its status is no final one, or a header or the reason would break the lines.
    """
    status = response.status
    if not _FIRST_FINAL_STATUS <= status <= _LAST_STATUS:
        raise UnsendableError(f"the answer has the status {status}, which is not one of a final answer")
    lines = [f"HTTP/1.1 {status} {response.reason}"]
    for name, value in response.headers.items():
        start = _line_start(name)
        if start:
            lines.append(start + value)
    if is_chunked:
        lines.append("Transfer-Encoding: chunked")
    elif length is not None and status != _NO_CONTENT:
        lines.append(f"Content-Length: {length}")
    if not incoming.keeps_connection:
        lines.append("Connection: close")
    elif not incoming.has_chunks:
        lines.append("Connection: keep-alive")
    text = "\r\n".join(lines)
    ends = len(lines) - 1
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise UnsendableError("a header of the answer holds a line break or a NUL")
    try:
        return f"{text}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise UnsendableError("a header of the answer holds characters beyond Latin-1") from None


@lru_cache(maxsize=128)
def _line_start(name: str) -> str:
    """How the line of a header begins; empty when the connection alone decides about it."""
    if _TOKEN.fullmatch(name) is None:
        raise UnsendableError(f"the answer has a header with the name {name!r}, which is not allowed")
    lower = name.lower()
    return "" if lower in HOP_BY_HOP or lower == "content-length" else f"{name}: "
