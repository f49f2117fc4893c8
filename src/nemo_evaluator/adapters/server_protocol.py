"""Connections of the harness as asyncio protocols.

A connection serves one request at a time; what was sent ahead waits. There are no timers per request: one sweep over
all connections, twice a second, finds those that have been waiting for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections import deque
from typing import cast

from nemo_evaluator.adapters.server_head import CONTINUE
from nemo_evaluator.adapters.server_reader import Admit, Limits, RequestReader, Visit

SWEEP_SECONDS = 0.5
_READ_BYTES = 256 * 1024
_CANCEL_SECONDS = 1.0


class ClientGone(Exception):  # noqa: N818  no error: clients may leave
    """The client left before it had its answer."""


class Connections:
    """All connections of a listener, and the factory of their protocols; to be made in the running event loop."""

    def __init__(self, admit: Admit, limits: Limits) -> None:
        self.admit = admit
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        # Each read is parsed before the next one begins, so that one buffer is enough for all.
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self._open: set[Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closing = False

    def __call__(self) -> Connection:
        """The protocol for a new connection."""
        return Connection(self)

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        if self._is_closing:
            connection.abort()
            return
        self._open.add(connection)
        if self._sweep is None:
            self._sweep = self.loop.call_later(SWEEP_SECONDS, self._check)

    def closed(self, connection: Connection) -> None:
        """A connection has ended."""
        self._open.discard(connection)

    def _check(self) -> None:
        # First, so that no failure ends the sweeps.
        self._sweep = self.loop.call_later(SWEEP_SECONDS, self._check) if self._open else None
        now = self.loop.time()
        for connection in tuple(self._open):
            connection.check(now)

    async def shutdown(self, seconds: float) -> None:
        """Close all connections; requests under way have `seconds` to end, then they are cancelled."""
        self._is_closing = True
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = {connection.task for connection in self._open if connection.task is not None}
        for connection in tuple(self._open):
            connection.finish()
        for wait_seconds in (seconds, _CANCEL_SECONDS):
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=wait_seconds)
            for task in tasks:
                task.cancel()
        for connection in tuple(self._open):
            connection.abort()


class Connection(asyncio.BufferedProtocol):
    """One connection: its requests, one after another, and the way back for their answers."""

    __slots__ = (
        "_all", "_buffered", "_current", "_has_begun", "_is_half_closed", "_is_last", "_moved", "_reader", "_since",
        "_transport", "_waiter", "_waiting", "_was_receiving", "is_full", "task",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, connections: Connections) -> None:
        self._all = connections
        self._reader = RequestReader(connections.admit, connections.limits, ready=self._ready, go_on=self._go_on)
        self.task: asyncio.Task[None] | None = None
        """The answer under way."""
        self._waiting: deque[Visit] = deque()
        self._is_last = False
        self._is_half_closed = False
        self._current: Visit | None = None
        self._has_begun = False
        self.is_full = False
        """Whether so much of what was written is still to be sent that its writer should wait."""
        self._waiter: asyncio.Future[None] | None = None
        # When the sweep saw the present state for the first time, and what waits to be sent; 0.0: not yet.
        self._since = 0.0
        self._was_receiving = False
        self._moved = 0.0
        self._buffered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._all.opened(self)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where to put what the client sent."""
        return self._all.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The client sent something."""
        self._reader.feed(self._all.buffer[:nbytes])

    def eof_received(self) -> bool:
        """The client sends nothing more: it waits for its answer all the same (RFC 9112, 9.6), or it has gone.

        Only something that is sent shows which: who has gone resets the connection. An interim answer, which every
        client has to pass over (RFC 9110, 15.2), is no part of the answer. Clients that half-close do so at the end of
        their request; who ends the connection in the midst of the answer has gone. So, for want of interim answers, has
        a client of HTTP/1.0.
        """
        current = self._current
        if self.task is None or current is None or self._transport.is_closing():
            return False
        if self._has_begun or not current.incoming.has_chunks:
            return False
        self._is_half_closed = True
        if not self._has_begun:
            self._transport.write(CONTINUE)
        self._all.loop.call_soon(self._check_presence)
        return True

    def _check_presence(self) -> None:
        """End a connection whose client has sent its end, and is found to have gone."""
        found = self._transport.get_extra_info("socket")
        if self._transport.is_closing() or found is None or found.fileno() < 0:
            return
        poll = select.poll()
        poll.register(found.fileno(), 0)
        if poll.poll(0):  # a reset or an error: these are told unasked
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """The client has gone, or was left: nobody waits for an answer any more."""
        self._all.closed(self)
        self._reader.close()
        for visit in self._waiting:
            visit.left()
        self._waiting.clear()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        """The client is slower than its answer."""
        self.is_full = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.is_full = False
        self._moved = 0.0
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def is_open(self) -> bool:
        """Whether something may still be written."""
        return not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send `data`.

        Raises:
            ClientGone: it cannot be sent any more.
        """
        if self._transport.is_closing():
            raise ClientGone
        self._has_begun = True
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait while `is_full`."""
        if self.is_full and not self._transport.is_closing():
            self._waiter = self._all.loop.create_future()
            await self._waiter

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def close(self) -> None:
        """End the connection when all that was written is sent."""
        self._transport.close()

    def reset(self) -> None:
        """End the connection with a reset, as `close` with a linger time of 0 does (POSIX 2.10.16, SO_LINGER)."""
        connection = self._transport.get_extra_info("socket")
        if connection is not None and connection.fileno() >= 0:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def finish(self) -> None:
        """End the connection after the answer that is under way."""
        self._is_last = True
        if self.task is None:
            self._transport.close()

    def check(self, now: float) -> None:
        """End what has been waiting for too long; called by the sweep."""
        if self._is_half_closed:
            self._check_presence()
        if self._is_stalled(now):
            self._transport.abort()
        elif self.task is not None or self._buffered:
            return
        elif not self._since or self._was_receiving != self._reader.is_receiving:
            # A request that begins has its own time, however long the connection has been idle.
            self._since = now
            self._was_receiving = self._reader.is_receiving
        else:
            self._check_wait(now - self._since)

    def _check_wait(self, seconds: float) -> None:
        limits, reader = self._all.limits, self._reader
        if reader.is_over:
            if seconds > limits.linger_seconds:
                self._transport.abort()
        elif reader.is_receiving:
            if seconds > limits.request_seconds:
                reader.refuse(408, f"the request did not end within {limits.request_seconds:g} s")
        elif seconds > limits.idle_seconds:
            self._transport.close()

    def _is_stalled(self, now: float) -> bool:
        """Whether the client has taken nothing of what waits for it, for too long."""
        buffered, before = self._transport.get_write_buffer_size(), self._buffered
        self._buffered = buffered
        if not buffered:
            self._moved = 0.0
        elif not self._moved or buffered < before:
            self._moved = now
        return bool(buffered) and now - self._moved > self._all.limits.stalled_seconds

    def _ready(self, visit: Visit) -> None:
        """A request is to be answered, after those before it."""
        self._since = 0.0
        if self.task is None:
            self.task = self._all.loop.create_task(self._answer(visit))
        else:
            self._waiting.append(visit)
            self._transport.pause_reading()

    def _go_on(self) -> None:
        if self.task is None and not self._transport.is_closing():
            self._transport.write(CONTINUE)

    async def _answer(self, visit: Visit) -> None:
        self._current = visit
        self._has_begun = False
        try:
            await visit.answer(self)
            if self.is_full:
                await self.drain()
        except ClientGone:
            self._transport.close()
        except BaseException:
            self._transport.abort()
            raise
        finally:
            self.task = None
            self._current = None
            self._since = 0.0
        self._go_to_next(visit)

    def _go_to_next(self, answered: Visit) -> None:
        transport, incoming = self._transport, answered.incoming
        if transport.is_closing():
            return
        if self._is_half_closed and not self._waiting:
            transport.close()
        elif incoming.refusal is not None:
            # Closing now would reset the connection, and with it what the client has not read yet.
            transport.resume_reading()
            if not transport.get_write_buffer_size():
                # It may have gone already.
                with contextlib.suppress(OSError):
                    transport.write_eof()
        elif self._is_last or not incoming.keeps_connection:
            transport.close()
        elif self._waiting:
            self.task = self._all.loop.create_task(self._answer(self._waiting.popleft()))
            if not self._waiting:
                transport.resume_reading()
