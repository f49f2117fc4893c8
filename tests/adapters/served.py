"""A harness server with chains made up by a test, in a thread with its own event loop, and raw clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from multidict import CIMultiDict

from nemo_evaluator.adapters.context import Ends
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.server import HarnessServer, ServedRoute
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.adapters.upstream import Upstream

PATH = "/secret/v1/chat/completions"
CLOSE = "Connection: close"


def head_of(received: bytes) -> list[str]:
    """The lines of a response's head."""
    return received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")


def body_of(received: bytes) -> bytes:
    """A response's body, as it came."""
    return received.partition(b"\r\n\r\n")[2]


@dataclass
class Served:
    """A server under test."""

    port: int
    stats: StatsRecorder
    ends: Ends
    requests: list[Request] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def say(self, *parts: bytes) -> bytes:
        """What comes back, until the server ends the connection, for bytes that are sent part by part."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return read_all(connection)

    def wait_until_idle(self) -> None:
        wait_until(lambda: self.stats.snapshot().in_flight == 0)


def read_all(connection: socket.socket) -> bytes:
    """All that still comes; a reset ends it like an end does."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def ends_with_reset(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def read_until(connection: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        chunk = connection.recv(65536)
        assert chunk, f"the connection ended after {received!r}"
        received += chunk
    return received


def wait_until(is_so: Callable[[], bool], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def post(body: bytes = b"{}", *headers: str, path: str = PATH, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: proxy", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(body: bytes | Stream = b"{}", *headers: tuple[str, str], status: int = 200, reason: str = "OK") -> Response:
    return Response(status, CIMultiDict(headers), body, reason=reason)


class Stream:
    """A body that arrives as an asynchronous generator makes it."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self.is_complete = False
        self.is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        self.is_closed = True


@contextlib.contextmanager
def serving(chain: CallNext | None = None) -> Iterator[Served]:
    """Serve `chain` under the token `secret`; without a chain the answer repeats the request's body."""
    served = Served(0, StatsRecorder(), Ends())

    async def recorded(request: Request) -> Response:
        served.requests.append(request)
        return answer(request.body) if chain is None else await chain(request)

    route = ServedRoute(
        token="secret",
        name="model",
        upstream=Upstream("http://127.0.0.1:9/v1/chat/completions"),
        chain=recorded,
        stats=served.stats,
    )
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        protocols = HarnessServer([route], ends=served.ends).protocol_factory()
        listener = await loop.create_server(protocols, "127.0.0.1", 0, backlog=4096)
        served.port = listener.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        listener.close()
        await protocols.shutdown(0.2)

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, name="served")
    thread.start()
    assert ready.wait(20)
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()
