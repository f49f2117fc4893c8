"""An answer of the endpoint while it arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nemo_evaluator.adapters.answer_head import AnswerHead

if TYPE_CHECKING:
    from nemo_evaluator.adapters.client_protocol import ClientConnection

HIGH_WATER = 256 * 1024
"""Bytes of a stream that wait for the harness before reading from the endpoint stops."""

_MOST_PIECES = 1024


class ArrivingAnswer:
    """One answer: its head, then its body, whole or in pieces.

    Attributes:
        limit: most bytes that the body may have.
        head: None until it has arrived.
        ready: done when the head is there, and for JSON and empty bodies the body too; or when the exchange failed.
        received: bytes of the body so far.
        first_byte: when the first of them came, on the monotonic clock; 0 before.
        ended: when the last of them came; 0 before.
        error: why it will never be complete.
    """

    __slots__ = (
        "_bulk", "_connection", "_pieces", "_taken", "_waiter", "ended", "error", "first_byte", "head", "is_paused",
        "limit", "ready", "received",
    )  # fmt: skip

    def __init__(self, connection: ClientConnection, ready: asyncio.Future[None], *, limit: int) -> None:
        self._connection: ClientConnection | None = connection
        self.ready = ready
        self.limit = limit
        self.head: AnswerHead | None = None
        self.received = 0
        self.first_byte = 0.0
        self.ended = 0.0
        self.error: Exception | None = None
        self.is_paused = False
        self._pieces: list[bytes] = []
        self._bulk: bytearray | None = None
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all of it has arrived."""
        return self.ended > 0

    @property
    def is_waiting(self) -> bool:
        """Whether bytes of it have not been taken yet."""
        return self.received > self._taken

    @property
    def is_stream(self) -> bool:
        """Whether it is passed on as it arrives; JSON is not, so that one that breaks off is a failure."""
        return self.head is not None and self.head.kind != "json"

    def add(self, piece: bytes) -> None:
        """The next bytes of the body; the caller watches the limit."""
        pieces = self._pieces
        pieces.append(piece)
        if len(pieces) >= _MOST_PIECES:
            # An object for every two bytes would cost thirty times their memory.
            if self._bulk is None:
                self._bulk = bytearray()
            self._bulk += b"".join(pieces)
            pieces.clear()

    def take(self) -> bytes:
        """All bytes that have arrived and were not taken yet."""
        pieces = self._pieces
        if self._bulk is not None:
            data = bytes(self._bulk + b"".join(pieces))
            self._bulk = None
        else:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._taken = self.received
        return data

    async def read(self) -> bytes:
        """The next bytes of a stream, as many as there are; none when it is complete.

        Raises:
            Exception: `error`, after everything that had arrived before.
        """
        while not self.is_waiting:
            if self.error is not None:
                # An error that is held by what its traceback holds would keep the request alive with it.
                error, self.error = self.error, ConnectionAbortedError("the answer has failed before")
                try:
                    raise error
                finally:
                    del error
            if self.is_complete:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = self.take()
        if self.is_paused and self._connection is not None:
            self.is_paused = False
            self._connection.resume()
        return data

    def wake(self, now: float) -> bool:
        """Tell who waits for a stream that something came; returns whether too much of it waits already."""
        if not self.first_byte and self.received:
            self.first_byte = now
        self._tell()
        self.is_paused = self.received - self._taken > HIGH_WATER
        return self.is_paused

    def end(self, now: float) -> None:
        """It is complete, and its connection may serve the next one."""
        self._connection = None
        self.ended = now
        if not self.first_byte and self.received:
            self.first_byte = now
        self._tell()

    def fail(self, error: Exception) -> None:
        """It will never be complete."""
        self._connection = None
        self.error = error
        self._tell()

    def abandon(self) -> None:
        """Nobody wants it any more: its connection is closed, which tells the endpoint."""
        if self._connection is not None:
            self._connection.abandon()

    def _tell(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
