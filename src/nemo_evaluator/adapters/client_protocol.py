"""One connection to the endpoint: HTTP/1.1, one exchange at a time, parsed by llhttp."""

from __future__ import annotations

import asyncio
import select
from time import monotonic
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from nemo_evaluator.adapters.answer_head import LARGEST_HEAD, AnswerHead, BadHeadError
from nemo_evaluator.adapters.arriving import ArrivingAnswer
from nemo_evaluator.adapters.failures import UpstreamFailure

_LARGE_BODY = 128 * 1024
_SLICE = 256 * 1024
_MOST_INTERIM = 32
_STALE_SECONDS = 2.0
"""An endpoint that has closed a connection says so within a round trip; one that takes longer was at work."""


class BrokenExchangeError(Exception):
    """The exchange ended without a complete answer."""


class StaleConnectionError(BrokenExchangeError):
    """A kept connection turned out to be closed: nothing of an answer has come."""


class SilentError(Exception):
    """The endpoint was silent for too long."""


class TooSlowError(Exception):
    """The answer was not complete in time."""


EXCHANGE_FAILURES = (BrokenExchangeError, SilentError, TooSlowError, OSError, UpstreamFailure)
"""What an exchange may raise when the network or the endpoint is at fault."""


class Owner(Protocol):
    """Who keeps the connections."""

    buffer: memoryview
    """What a connection reads into; each read is parsed before the next one begins, so that one is enough for all."""

    def began(self, connection: ClientConnection, /) -> None:
        """An exchange is under way."""
        ...

    def ended(self, connection: ClientConnection, /, *, may_keep: bool) -> None:
        """It is over; `may_keep` tells whether another one may follow on the connection."""
        ...


class ClientConnection(asyncio.BufferedProtocol):
    """A connection. All methods are to be called in its event loop.

    Attributes:
        is_open: whether it can be used at all.
        idle_since: when its last exchange ended, on the monotonic clock.
    """

    __slots__ = (
        "_active", "_answer", "_began", "_error", "_exchanges", "_fields", "_head_bytes", "_interim", "_is_done",
        "_is_head", "_is_write_paused", "_loop", "_may_keep", "_owner", "_parser", "_poll", "_reason", "_transport",
        "_unsent", "idle_since", "is_open",
    )  # fmt: skip

    _error: Exception | None

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._parser = HttpResponseParser(self)
        # Some servers end lines with LF alone, or pad the sizes of chunks; neither can be read in two ways.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._answer: ArrivingAnswer | None = None
        self._exchanges = 0
        self._unsent: memoryview | None = None
        self._is_write_paused = False
        self._poll: select.poll | None = None
        self.is_open = False
        self.idle_since = 0.0

    async def exchange(self, head: bytes, body: bytes, *, limit: int, is_head: bool = False) -> ArrivingAnswer:
        """Send a request; returns when its answer is `ready`.

        Args:
            head: the request's head, with the empty line.
            body: its body.
            limit: most bytes that the answer's body may have.
            is_head: whether it is a HEAD request, whose answer has no body whatever its head says.

        Raises:
            StaleConnectionError: the connection was kept from before, and is closed.
            BrokenExchangeError: what came is no answer, or no complete one.
            SilentError, TooSlowError: none came in time.
            UpstreamFailure: it is too large.
        """
        answer = ArrivingAnswer(self, self._loop.create_future(), limit=limit)
        self._begin(answer, is_head=is_head)
        self._send(head, body)
        try:
            await answer.ready
        except asyncio.CancelledError:
            answer.abandon()
            raise
        # What came of a stream before it broke is passed on; half a document is nothing.
        if answer.error is not None and not (answer.is_waiting and answer.is_stream):
            # An error that is held by what its traceback holds would keep the request alive with it.
            error, answer.error, self._error = answer.error, None, None
            try:
                raise error
            finally:
                del error
        return answer

    def _begin(self, answer: ArrivingAnswer, *, is_head: bool) -> None:
        self._answer = answer
        self._is_head = is_head
        self._began = self._active = monotonic()
        self._exchanges += 1
        self._error = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._head_bytes = 0
        self._interim = 0
        self._is_done = False
        self._owner.began(self)

    def _send(self, head: bytes, body: bytes) -> None:
        if len(body) <= _LARGE_BODY:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._unsent = memoryview(body)
            self._send_more()

    def _send_more(self) -> None:
        """Write slices of a large body as they go out: the transport would copy what it cannot send at once."""
        while self._unsent is not None and not self._is_write_paused and not self._transport.is_closing():
            piece, rest = self._unsent[:_SLICE], self._unsent[_SLICE:]
            self._unsent = rest if len(rest) else None
            self._transport.write(piece)

    def pause_writing(self) -> None:
        """The transport has enough to send."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """The transport has sent it."""
        self._is_write_paused = False
        self._active = monotonic()
        self._send_more()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open, TLS included."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._poll = None
        self._break(exc)

    def eof_received(self) -> None:
        """The endpoint sends nothing more; where nothing else says so, that is the end of the body."""
        answer = self._answer
        if answer is not None and answer.head is not None and answer.head.ends_with_connection:
            self._active = monotonic()
            self._finish(may_keep=False)
        self._break(None)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the transport puts what it reads."""
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes of an answer, or of what nobody asked for."""
        answer = self._answer
        if answer is None:
            self.is_open = False
            self._transport.abort()
            return
        self._active = now = monotonic()
        if answer.head is None:
            self._head_bytes += nbytes
        may_keep = False
        try:
            self._parser.feed_data(self._owner.buffer[:nbytes])
            may_keep = self._unsent is None
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._is_done:
                self._fail(self._error or BrokenExchangeError(f"what it answered is not HTTP/1.1: {error}"))
                return
        if self._is_done:
            self._finish(may_keep=may_keep and not self._is_head and self._may_keep)
        elif answer.head is None:
            if self._head_bytes > LARGEST_HEAD:
                self._fail(_too_large_head())
        elif answer.is_stream and answer.wake(now):
            self._transport.pause_reading()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._is_done:
            raise BrokenExchangeError("more than one answer came")

    def on_status(self, reason: bytes) -> None:
        """Called by the parser."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004  an interim answer (RFC 9110, 15.2)
            self._skip_interim(status)
            return
        fields = self._fields
        # A head that came together with its body cannot be told from it by the number of bytes.
        if self._head_bytes > LARGEST_HEAD and sum(len(name) + len(value) + 4 for name, value in fields) > LARGEST_HEAD:
            self._stop(_too_large_head())
        try:
            head = AnswerHead(status, self._reason, fields)
        except BadHeadError as error:
            self._stop(BrokenExchangeError(str(error)))
        answer = self._answer
        if answer is None:
            return
        answer.head = head
        if self._is_head:
            self._is_done = True
        elif head.length is not None and head.length > answer.limit:
            self._stop(_too_large(answer.limit))

    def on_body(self, piece: bytes) -> None:
        """Called by the parser."""
        answer = self._answer
        if answer is None or self._is_done:
            return
        answer.received += len(piece)
        if answer.received > answer.limit:
            self._stop(_too_large(answer.limit))
        answer.add(piece)

    def on_message_complete(self) -> None:
        """Called by the parser, for interim answers too."""
        if self._answer is not None and self._answer.head is not None:
            self._is_done = True
            self._may_keep = self._parser.should_keep_alive()

    def _skip_interim(self, status: int) -> None:
        self._interim += 1
        if status == 101:  # noqa: PLR2004  another protocol, which nobody asked for
            self._stop(BrokenExchangeError("it switched protocols without being asked"))
        if self._interim > _MOST_INTERIM:
            self._stop(BrokenExchangeError(f"it sent more than {_MOST_INTERIM} interim answers"))
        self._fields = []
        self._reason = b""

    def _stop(self, error: Exception) -> None:
        """Stop the parser: its callers see errors of its own only."""
        self._error = error
        raise error

    def _finish(self, *, may_keep: bool) -> None:
        answer, self._answer = self._answer, None
        self._unsent = None
        self.idle_since = self._active
        # First the connection is given back: who gets the answer may ask again at once.
        self._owner.ended(self, may_keep=may_keep)
        if answer is not None:
            answer.end(self._active)

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        self._unsent = None
        self._owner.ended(self, may_keep=False)
        if answer is not None:
            answer.fail(error)

    def _break(self, cause: Exception | None) -> None:
        """The connection has come to its end, and with it what was under way."""
        self.is_open = False
        answer = self._answer
        if answer is None:
            return
        reason = "it closed the connection" if cause is None else f"{type(cause).__name__}: {cause}"
        if self._head_bytes or answer.head is not None:
            self._fail(BrokenExchangeError(f"{reason} before its answer was complete"))
        elif self._exchanges > 1 and monotonic() - self._began < _STALE_SECONDS:
            self._fail(StaleConnectionError(reason))
        else:
            self._fail(BrokenExchangeError(f"{reason} before it answered"))

    def abandon(self) -> None:
        """Close it in the middle of an exchange, which tells the endpoint that nobody waits."""
        self._fail(BrokenExchangeError("nobody waits for the answer"))

    def resume(self) -> None:
        """The harness has read what waited."""
        self._active = monotonic()
        self._transport.resume_reading()

    def check(self, now: float, *, silence: float, total: float) -> None:
        """Fail the exchange when its time is up; silence does not count while the harness is the slow one."""
        answer = self._answer
        if answer is None:
            return
        if now - self._began > total:
            self._fail(TooSlowError())
        elif now - self._active > silence and not answer.is_paused:
            self._fail(SilentError())

    def close(self) -> None:
        """Close it at once."""
        self.is_open = False
        self._transport.abort()

    def has_input(self) -> bool:
        """Whether something has come in on an idle connection: its end, or what nobody asked for.

        The event loop finds most of that; what came while it was busy is seen here, by asking the kernel.
        """
        poll = self._poll
        if poll is None:
            found = self._transport.get_extra_info("socket")
            if found is None or found.fileno() < 0:
                return True
            poll = self._poll = select.poll()
            poll.register(found.fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _too_large(limit: int) -> UpstreamFailure:
    return UpstreamFailure(f"the answer is larger than {limit:,} bytes", code="answer_too_large")


def _too_large_head() -> BrokenExchangeError:
    return BrokenExchangeError(f"the head of its answer is larger than {LARGEST_HEAD:,} bytes")
