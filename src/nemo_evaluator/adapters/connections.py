"""The kept-alive connections to the endpoint: none that the endpoint has closed is written to."""

from __future__ import annotations

import asyncio
import errno
import re
import resource
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

from nemo_evaluator.adapters.client_protocol import ClientConnection

KEEP_ALIVE_SECONDS = 4.0
"""Less than the 5 s that uvicorn, and with it vLLM, waits. An endpoint that waits less ends the connection, which is
seen before its next use; a request that meets that end halfway is sent once more."""

_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
_LEAST_CONNECTIONS, _OTHER_FILES = 8, 64
_READ_BYTES = 256 * 1024
_LEAST_SECONDS = KEEP_ALIVE_SECONDS / 1024
_RECOVERY_SECONDS = 10.0
_LONGEST_TICK, _SHORTEST_TICK = 1.0, 0.01
_TICKS = 10
_ANNOUNCED = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)

Open = Callable[[Callable[[], ClientConnection]], Awaitable[ClientConnection]]
"""Opens a connection for the protocol that it is given a maker of."""


class ConnectTimeoutError(Exception):
    """No connection was opened in time."""


class Connections:
    """Connections that are used one exchange at a time, the last one that became free first.

    Time-outs are looked after here by one timer for all exchanges, so that a request costs none.

    Args:
        open_one: opens a new connection.
        connect_timeout: seconds for that.
        silence: most seconds for which the endpoint may be silent while it owes an answer.
        total: most seconds for an exchange.
        most: how many may be in use at once; None for what the system's limit of open files leaves.

    Attributes:
        idle_seconds: how long a connection may have been idle and still be used.
    """

    def __init__(
        self, open_one: Open, *, connect_timeout: float, silence: float, total: float, most: int | None = None
    ) -> None:
        self._open_one = open_one
        self._connect_timeout = connect_timeout
        self._silence = silence
        self._total = total
        self._tick = max(_SHORTEST_TICK, min(_LONGEST_TICK, silence / _TICKS, total / _TICKS))
        self._loop = asyncio.get_running_loop()
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self._idle: list[ClientConnection] = []
        self._busy: set[ClientConnection] = set()
        self._most = _most_connections() if most is None else most
        self._opening = 0
        self._waiting: deque[asyncio.Future[ClientConnection | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._most_idle_seconds = KEEP_ALIVE_SECONDS
        self._recovers = 0.0
        self.idle_seconds = KEEP_ALIVE_SECONDS

    def take(self) -> ClientConnection | None:
        """A kept connection that nothing has come in on since its last answer; None when there is none."""
        idle = self._idle
        if not idle:
            return None
        now = monotonic()
        if self.idle_seconds < self._most_idle_seconds and now > self._recovers:
            self._recovers = now + _RECOVERY_SECONDS
            self.idle_seconds = min(self._most_idle_seconds, self.idle_seconds * 2)
        oldest = now - self.idle_seconds
        while idle:
            connection = idle.pop()
            if connection.is_open and connection.idle_since >= oldest and not connection.has_input():
                return connection
            connection.close()
        return None

    async def open(self) -> ClientConnection:
        """A new connection, or one that became free while there could be no more.

        Raises:
            ConnectTimeoutError: none was opened in time.
            OSError: none can be opened; certificates that are refused are among its subclasses.
        """
        while True:
            if len(self._busy) + self._opening < self._most:
                self._opening += 1
                try:
                    return await self._open_in_time()
                except BaseException as error:
                    # Where nothing is under way nothing will become free.
                    if isinstance(error, OSError) and error.errno in _TOO_MANY_FILES and self._busy:
                        pass
                    else:
                        self._hand_over(None)  # another one may try in its place
                        raise
                finally:
                    self._opening -= 1
            freed = await self._next_free()
            if freed is not None:
                return freed

    async def _next_free(self) -> ClientConnection | None:
        """Wait for the end of an exchange; its connection, unless that cannot be kept.

        None after the time for connecting, too: there may be room for a new one without anybody having said so.
        """
        waiting: asyncio.Future[ClientConnection | None] = self._loop.create_future()
        self._waiting.append(waiting)
        timer = self._loop.call_later(self._connect_timeout, _stop_waiting, waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and (freed := waiting.result()) is not None:
                self.ended(freed, may_keep=True)
            elif waiting.done() and not waiting.cancelled():
                self._hand_over(None)
            raise
        finally:
            timer.cancel()

    async def _open_in_time(self) -> ClientConnection:
        try:
            async with asyncio.timeout(self._connect_timeout) as deadline:
                return await self._open_one(self._make)
        except TimeoutError as error:
            # The system has a time-out of its own, which is an OSError like others.
            if deadline.expired():
                raise ConnectTimeoutError from error
            raise

    def _make(self) -> ClientConnection:
        return ClientConnection(self, self._loop)

    def learn(self, keep_alive: str) -> None:
        """Stay below the idle time that the endpoint announces in `Keep-Alive: timeout=…` (RFC 2068, 19.7.1.1).

        Behind one address several servers may stand: the shortest time that was announced counts.
        """
        found = _ANNOUNCED.search(keep_alive)
        if found:
            self._most_idle_seconds = min(self._most_idle_seconds, int(found[1]) / 2)
            self.idle_seconds = min(self.idle_seconds, self._most_idle_seconds)

    def shorten(self) -> None:
        """Trust idle connections for less long for some time: one was closed before its answer, and unannounced."""
        self.idle_seconds = min(self.idle_seconds, max(_LEAST_SECONDS, self.idle_seconds / 4))
        self._recovers = monotonic() + _RECOVERY_SECONDS

    def began(self, connection: ClientConnection) -> None:
        """An exchange is under way."""
        self._busy.add(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(self._tick, self._look_after)

    def ended(self, connection: ClientConnection, *, may_keep: bool) -> None:
        """It is over."""
        self._busy.discard(connection)
        may_keep = may_keep and bool(self.idle_seconds) and not self._is_closed
        if self._waiting and self._hand_over(connection if may_keep else None) and may_keep:
            return
        if may_keep:
            self._idle.append(connection)
        else:
            connection.close()

    def _hand_over(self, connection: ClientConnection | None) -> bool:
        """Let the next that waits have `connection`, or open one; False when nobody waits any more."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False

    def _look_after(self) -> None:
        """Fail what takes too long, close what has been idle for too long."""
        self._timer = None
        now = monotonic()
        for connection in [*self._busy]:
            connection.check(now, silence=self._silence, total=self._total)
        oldest = now - self.idle_seconds
        expired = 0
        for connection in self._idle:
            if connection.is_open and connection.idle_since >= oldest:
                break
            connection.close()
            expired += 1
        del self._idle[:expired]
        if (self._busy or self._idle) and not self._is_closed:
            self._timer = self._loop.call_later(self._tick, self._look_after)

    async def close(self) -> None:
        """Close all connections, whatever is under way on them."""
        self._is_closed = True
        for waiting in self._waiting:
            waiting.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for connection in [*self._busy]:
            connection.abandon()
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        # Transports close their sockets in the next turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)


def _stop_waiting(waiting: asyncio.Future[ClientConnection | None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _most_connections() -> int:
    """Half of the files that the process may have open, for the harness has as many, less some for everything else."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else max(_LEAST_CONNECTIONS, limit // 2 - _OTHER_FILES)
