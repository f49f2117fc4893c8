"""From the bytes of a connection to requests of the harness: parsed by httptools (llhttp), within limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import httptools

from nemo_evaluator.adapters.server_head import HeadError, Incoming, RawHeader

if TYPE_CHECKING:
    from nemo_evaluator.adapters.server_protocol import Connection

_CONNECT = "CONNECT"
_UPGRADES = frozenset({b"upgrade", b"http2-settings"})
_METHODS: dict[bytes, str] = {method.encode(): method for method in ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What clients may do.

    Attributes:
        head_bytes: longest head of a request; also the most framing between two pieces of its body.
        request_bytes: longest body.
        request_seconds: from the first byte of a request to its last.
        idle_seconds: how long a connection is kept without a request.
        stalled_seconds: how long a client may take nothing of an answer that waits for it.
        linger_seconds: how long the rest of a refused request is read, so that its client gets to see the refusal.
    """

    head_bytes: int
    request_bytes: int
    request_seconds: float
    idle_seconds: float
    stalled_seconds: float
    linger_seconds: float


class Visit(Protocol):
    """One request on its way from its head to its answer, as the one who answers sees it."""

    @property
    def incoming(self) -> Incoming:
        """The request."""
        ...

    @property
    def keeps_body(self) -> bool:
        """Whether anybody will look at the body."""
        ...

    async def answer(self, connection: Connection, /) -> None:
        """Write the answer.

        Raises:
            ClientGone: the client does not get it, or not whole.
        """
        ...

    def left(self) -> None:
        """The client went before it had the answer."""
        ...


Admit = Callable[[Incoming], Visit]
"""Called with a request whose head is complete, or that was refused before that."""


class RequestReader:
    """Reads the requests of one connection.

    Args:
        admit: see there.
        limits: of heads and bodies.
        ready: called with each request that is complete or refused, in order.
        go_on: called when a client waits for `100 Continue`.
    """

    __slots__ = (
        "_admit", "_body", "_go_on", "_headers", "_incoming", "_limits", "_parser", "_ready", "_rest", "_silent",
        "_upgrade", "_visit", "is_over",
    )  # fmt: skip

    def __init__(
        self, admit: Admit, limits: Limits, *, ready: Callable[[Visit], None], go_on: Callable[[], None]
    ) -> None:
        self._admit = admit
        self._limits = limits
        self._ready = ready
        self._go_on = go_on
        self.is_over = False
        """Whether nothing that follows is read: the last request said so, or was refused."""
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._incoming: Incoming | None = None
        self._visit: Visit | None = None
        self._headers: list[RawHeader] = []
        self._upgrade: bytes | None = None
        self._body = b""
        self._rest: bytearray | None = None
        # Bytes since something came that has a limit of its own.
        self._silent = 0

    @property
    def is_receiving(self) -> bool:
        """Whether a request has begun and not ended."""
        return self._incoming is not None

    def feed(self, data: memoryview) -> None:
        """Take in what came."""
        if self._parser is None or self.is_over:
            return
        self._silent += len(data)
        rest: memoryview | bytes | None = data
        while rest is not None:
            rest = self._parse(rest)
        if self._silent > self._limits.head_bytes and not self.is_over:
            self.refuse(431, f"the head of the request is larger than {self._limits.head_bytes:,} bytes")

    def _parse(self, data: memoryview | bytes) -> bytes | None:
        """Parse `data`; what is to be parsed in its place when it asked for another protocol."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            head, self._upgrade = self._upgrade or b"", None
            self._parser = httptools.HttpRequestParser(self)
            return head + bytes(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._fail(error)
        return None

    def _fail(self, error: httptools.HttpParserError) -> None:
        if self.is_over:
            # Bytes after the last request are nobody's.
            return
        cause = error.__context__
        if isinstance(cause, HeadError):
            self.refuse(cause.status, str(cause))
        elif isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
            raise cause
        else:
            self.refuse(400, f"the request cannot be read: {error}")

    def refuse(self, status: int, text: str) -> None:
        """Answer the request that is being received with an error, and read nothing more."""
        self.is_over = True
        incoming = self._incoming or Incoming()
        incoming.refusal = (status, text)
        incoming.keeps_connection = False
        visit = self._visit or self._admit(incoming)
        self._forget()
        self._ready(visit)

    def close(self) -> None:
        """The client has gone."""
        # Nothing may hold in a circle: harnesses without keep-alive make a connection for each request.
        self._parser = None
        self._ready = self._go_on = _nobody
        self.is_over = True
        if self._visit is not None:
            self._visit.left()
        self._forget()

    def _forget(self) -> None:
        self._incoming = None
        self._visit = None
        self._body = b""
        self._rest = None
        self._silent = 0

    def on_message_begin(self) -> None:
        """A request begins."""
        self._incoming = Incoming()
        self._headers = []

    def on_url(self, part: bytes) -> None:
        """Some of its target."""
        assert self._incoming is not None
        self._incoming.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line, or a trailer's."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        parser, incoming, headers = self._parser, self._incoming, self._headers
        assert parser is not None
        assert incoming is not None
        method = parser.get_method()
        incoming.method = _METHODS.get(method) or method.decode()
        version = parser.get_http_version()
        if parser.should_upgrade() and incoming.method != _CONNECT:
            self._upgrade = _without_upgrade(incoming, headers, version=version)
            return
        limit = self._limits.head_bytes
        # That may be too many: bytes of other requests and of the body are among them.
        if (
            self._silent > limit
            and len(incoming.target) + sum(len(name + value) + 4 for name, value in headers) > limit
        ):
            raise HeadError(431, f"the head of the request is larger than {limit:,} bytes")
        self._silent = 0
        incoming.read_head(headers, version=version)
        if incoming.length > self._limits.request_bytes:
            raise self._too_large()
        self._visit = self._admit(incoming)
        if incoming.expects_continue:
            self._go_on()

    def on_body(self, part: bytes) -> None:
        """Some of its body."""
        self._silent = 0
        assert self._visit is not None
        if not self._visit.keeps_body:
            part = b""
        if self._rest is not None:
            self._rest += part
        elif not self._body:
            self._body = part
        else:
            self._rest = bytearray(self._body)
            self._rest += part
        size = len(self._body) if self._rest is None else len(self._rest)
        if size > self._limits.request_bytes:
            raise self._too_large()

    def _too_large(self) -> HeadError:
        return HeadError(413, f"the request is larger than {self._limits.request_bytes:,} bytes")

    def on_message_complete(self) -> None:
        """It is complete."""
        visit, parser = self._visit, self._parser
        if visit is None or parser is None:
            # It asks for another protocol, and is parsed again without that.
            return
        incoming = visit.incoming
        incoming.body = self._body if self._rest is None else bytes(self._rest)
        incoming.keeps_connection = parser.should_keep_alive()
        self.is_over = not incoming.keeps_connection
        self._forget()
        self._ready(visit)


def _nobody(*_: object) -> None:
    """In place of callbacks of a connection that is gone."""


def _head_bytes(incoming: Incoming, headers: list[RawHeader]) -> int:
    return len(incoming.target) + sum(len(name) + len(value) + 4 for name, value in headers)


def _without_upgrade(incoming: Incoming, headers: list[RawHeader], *, version: str) -> bytes:
    """The head without the wish for another protocol, which a server may pass over (RFC 9110, 7.8)."""
    lines = [b"%b %b HTTP/%b" % (incoming.method.encode(), incoming.target, version.encode())]
    for name, value in headers:
        lower = name.lower()
        if lower == b"connection":
            options = [option for option in value.split(b",") if option.strip().lower() not in _UPGRADES]
            if options:
                lines.append(name + b": " + b",".join(options))
        elif lower not in _UPGRADES:
            lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"
