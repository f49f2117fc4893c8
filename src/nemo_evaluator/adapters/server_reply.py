"""How a response gets to the harness: at once when it is whole, else chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable

from nemo_evaluator.adapters.messages import BodyStream, Response
from nemo_evaluator.adapters.server_head import Incoming, UnsendableError, answer_head, declared_length, has_body
from nemo_evaluator.adapters.server_protocol import ClientGone, Connection

Over = Callable[[int | None, str | None], None]
"""Told the status that the harness gets, or None when it gets no complete answer, and why the answer is unusable."""

_LONGEST_JOINED = 64 * 1024


class Reply:
    """One answer on its way out.

    Args:
        response: the answer.
        incoming: the request.
        connection: where it goes.
        over: called just before the last bytes are written: who has them may leave, or read the statistics.
    """

    __slots__ = ("_connection", "_ends_with_connection", "_incoming", "_over", "_response", "has_begun")

    def __init__(self, response: Response, incoming: Incoming, connection: Connection, *, over: Over) -> None:
        self._response = response
        self._incoming = incoming
        self._connection = connection
        self._over = over
        self._ends_with_connection = False
        self.has_begun = False
        """Whether something was written."""

    def send(self, body: bytes) -> None:
        """Send the answer with this whole body.

        Raises:
            UnsendableError: a header cannot be written; nothing was.
            ClientGone: it cannot be sent any more.
        """
        response, incoming, connection = self._response, self._incoming, self._connection
        length = len(body)
        if incoming.method == "HEAD":
            # The length is that of the body which a GET would have got (RFC 9110, 8.6).
            declared = declared_length(response)
            body, length = b"", length if declared is None else declared
        elif not has_body(response, incoming):
            body = b""
        head = answer_head(response, incoming, length=length)
        if not connection.is_open:
            raise ClientGone
        self.has_begun = True
        self._over(response.status, response.flaw)
        if len(body) <= _LONGEST_JOINED:
            connection.write(head + body)
        else:
            connection.write(head)
            connection.write(body)

    async def stream(self, body: BodyStream) -> None:
        """Send the answer while its body arrives.

        Raises:
            UnsendableError: a header cannot be written, or the body has another length than its headers say.
            ClientGone: it cannot be sent any more.
        """
        response, connection = self._response, self._connection
        is_sent, length = has_body(response, self._incoming), declared_length(response)
        is_chunked = is_sent and length is None and self._incoming.has_chunks
        if is_sent and length is None and not is_chunked:
            self._ends_with_connection = True
            self._incoming.keeps_connection = False
        head = answer_head(response, self._incoming, length=length, is_chunked=is_chunked)
        self.has_begun = True
        connection.write(head)
        left = length if is_sent else None
        async for chunk in body:
            if body.is_complete:
                self._over(response.status, response.flaw)
            if not chunk or not is_sent:
                continue
            if left is not None:
                left -= len(chunk)
                if left < 0:
                    raise UnsendableError(f"its body is longer than its Content-Length, {length}")
            connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked else chunk)
            if connection.is_full:
                await connection.drain()
        if left:
            raise UnsendableError(f"its body is shorter than its Content-Length, {length}")
        self._over(response.status, response.flaw)
        if is_chunked:
            connection.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """End the answer without its framing, so that the harness sees that it is not whole."""
        if self._ends_with_connection:
            # Where the end of the connection is all the framing there is, only a reset says so.
            self._connection.reset()
        else:
            self._connection.close()
