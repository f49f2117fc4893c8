"""Which connections to the endpoint are used again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from multidict import CIMultiDict
from tests.adapters.conftest import Client, ServeRaw, reset

from nemo_evaluator.adapters.client_protocol import ClientConnection
from nemo_evaluator.adapters.connections import KEEP_ALIVE_SECONDS, Connections
from nemo_evaluator.adapters.dialing import Dialer
from nemo_evaluator.adapters.endpoint import Endpoint
from nemo_evaluator.adapters.messages import Request
from nemo_evaluator.adapters.proxy import running_proxy
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.testing import FakeEndpoint

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class OneAnswerEach:
    """Answers one request per connection, which it closes when told to."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.may_close = threading.Event()
        self.has_closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self.may_close.set()
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(10)
            self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self.received.append(connection.recv(65536))
                    connection.sendall(ANSWER)
                    self.may_close.wait(10)
                self.has_closed.set()


@contextlib.asynccontextmanager
async def pool(url: str = "http://127.0.0.1:9/") -> AsyncIterator[Connections]:
    connections = Connections(Dialer(Upstream(url)).open, connect_timeout=10, silence=10, total=10)
    try:
        yield connections
    finally:
        await connections.close()


def test_an_end_that_the_event_loop_has_not_seen_yet_is_found_before_writing() -> None:
    server = OneAnswerEach()

    stats = StatsRecorder()

    async def ask() -> list[int]:
        async with Endpoint(Upstream(server.url), stats) as endpoint:
            first = await endpoint(Request("POST", server.url, CIMultiDict(), b"1"))
            await first.read()
            # The loop stands still while the connection ends, as it does while it is busy with other requests.
            server.may_close.set()
            assert server.has_closed.wait(10)
            second = await endpoint(Request("POST", server.url, CIMultiDict(), b"2"))
            await second.read()
            return [first.status, second.status]

    with server.running():
        assert asyncio.run(ask()) == [200, 200]
    assert [request[-1:] for request in server.received] == [b"1", b"2"]
    assert stats.snapshot().retried == 0


@pytest.mark.parametrize(
    ("announced", "usable"),
    [
        ("", KEEP_ALIVE_SECONDS),
        ("max=100", KEEP_ALIVE_SECONDS),
        ("timeout=soon", KEEP_ALIVE_SECONDS),
        ("timeout=75", KEEP_ALIVE_SECONDS),
        ("timeout=5, max=100", 2.5),
        ("timeout=1", 0.5),
        ("timeout=0", 0.0),
        ("max=100, Timeout = 0", 0.0),
    ],
)
def test_the_idle_time_stays_below_what_the_endpoint_announces(announced: str, usable: float) -> None:
    async def learn() -> float:
        async with pool() as connections:
            connections.learn(announced)
            connections.learn("timeout=60")
            return connections.idle_seconds

    assert asyncio.run(learn()) == usable


def test_after_broken_connections_idle_ones_are_trusted_for_less_and_less_time() -> None:
    async def shorten(times: int) -> float:
        async with pool() as connections:
            for _ in range(times):
                connections.shorten()
            connections.learn("timeout=60")
            return connections.idle_seconds

    assert asyncio.run(shorten(3)) == KEEP_ALIVE_SECONDS / 64
    # Ten thousand connections that break at once must not end keeping them for good.
    assert asyncio.run(shorten(10_000)) == KEEP_ALIVE_SECONDS / 1024


@pytest.mark.parametrize("ending", ["closed", "reset"])
@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE"])
def test_a_request_that_met_the_end_of_a_kept_connection_is_sent_once_more(
    serve_raw: ServeRaw, client: Client, method: str, ending: str
) -> None:
    """The endpoint closes connections when the next request is already on its way, which nobody can foresee."""
    seen: list[bytes] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        connection.sendall(ANSWER)
        # The connection is announced as kept, read once more, and closed without an answer.
        if len(seen) == 1:
            seen.append(connection.recv(65536))
            if ending == "reset":
                reset(connection)

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        statuses = [client.ask(method, proxy.url, text).status for text in (b"1", b"2", b"3")]
        stats = proxy.stats()
    assert statuses == [200, 200, 200]
    assert [request[-1:] for request in seen] == [b"1", b"2", b"2", b"3"]
    assert stats.connection_failures == 0
    if method == "POST":
        # What the endpoint may have seen is told as it was.
        assert (stats.requests, stats.sent, stats.retried) == (3, 4, 1)


def test_it_is_not_sent_a_third_time(serve_raw: ServeRaw, client: Client) -> None:
    seen: list[bytes] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        if len(seen) == 1:
            connection.sendall(ANSWER)
            seen.append(connection.recv(65536))

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        statuses = [client.post(proxy.url).status for _ in range(2)]
        stats = proxy.stats()
    assert statuses == [200, 502]
    assert len(seen) == stats.sent == 3
    assert stats.connection_failures == 1


@pytest.mark.parametrize("begin", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n"])
def test_a_request_whose_answer_had_begun_is_never_sent_again(
    serve_raw: ServeRaw, client: Client, begin: bytes
) -> None:
    seen: list[bytes] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        connection.sendall(ANSWER)
        seen.append(connection.recv(65536))
        connection.sendall(begin)

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        statuses = [client.post(proxy.url).status for _ in range(2)]
        stats = proxy.stats()
    assert statuses == [200, 502]
    assert len(seen) == stats.sent == 2


def test_a_first_request_that_gets_no_answer_is_not_repeated(serve_raw: ServeRaw, client: Client) -> None:
    """Nothing says that the endpoint has not worked on it: whether to repeat is for `retry` to say."""
    seen: list[bytes] = []
    with running_proxy(
        Upstream(f"{serve_raw(lambda _connection, request: seen.append(request))}/v1/chat/completions")
    ) as proxy:
        assert client.post(proxy.url).status == 502
    assert len(seen) == 1


def test_an_endpoint_that_breaks_kept_connections_soon_gets_new_ones(serve_raw: ServeRaw, client: Client) -> None:
    def respond(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(ANSWER)
        connection.recv(65536)

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        statuses = []
        for _ in range(30):
            statuses.append(client.post(proxy.url).status)
            time.sleep(0.005)
        stats = proxy.stats()
    assert statuses == [200] * 30
    assert 0 < stats.retried < 10


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER + b"x",
        ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        ANSWER.replace(b"200 OK", b"200 OK\r\nConnection: close"),
        ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ANSWER.replace(b"Content-Length: 2\r\n", b""),
        ANSWER.replace(b"200 OK", b"200 OK\r\nKeep-Alive: timeout=0"),
    ],
    ids=["trailing bytes", "second answer", "close", "HTTP/1.0", "ends with connection", "no idle time"],
)
def test_a_connection_is_not_used_again_after(serve_raw: ServeRaw, client: Client, answer: bytes) -> None:
    received: list[bytes] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        received.append(request)
        connection.sendall(answer)
        if b"Content-Length" in answer and (again := connection.recv(65536)):
            received.append(b"again: " + again)

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        replies = [client.post(proxy.url) for _ in range(3)]
        stats = proxy.stats()
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"{}")] * 3
    assert not any(request.startswith(b"again") for request in received)
    assert len(received) == stats.sent == 3


def test_what_comes_unasked_ends_a_kept_connection(serve_raw: ServeRaw, client: Client) -> None:
    received: list[bytes] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        received.append(request)
        connection.sendall(ANSWER)
        time.sleep(0.05)
        connection.sendall(ANSWER.replace(b"{}", b"[]"))
        assert connection.recv(65536) == b""

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        bodies = []
        for _ in range(2):
            bodies.append(client.post(proxy.url).body)
            time.sleep(0.1)
    assert bodies == [b"{}", b"{}"]
    assert len(received) == 2


@pytest.mark.parametrize("header", ["", "Connection: close\r\n"])
def test_an_endpoint_that_closes_after_every_second_answer_costs_no_request(
    serve_raw: ServeRaw, client: Client, header: str
) -> None:
    answered: list[int] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        for last in (False, True):
            if not request:
                return
            answered.append(1)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{header if last else ''}Content-Length: 2"
            connection.sendall(f"{head}\r\n\r\n{{}}".encode())
            if not last:
                request = connection.recv(65536)

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        statuses = []
        for _ in range(20):
            statuses.append(client.post(proxy.url).status)
            # The end of a connection takes its time to arrive; at once, it could not be told from an open one.
            time.sleep(0.02)
        stats = proxy.stats()
    assert statuses == [200] * 20
    assert len(answered) == stats.requests == 20


def test_where_few_files_may_be_open_requests_wait_for_each_other(client: Client) -> None:
    words = [sys.executable, str(Path(__file__).with_name("few_files.py"))]
    with FakeEndpoint("yes", latency=0.02) as endpoint:
        with subprocess.Popen(
            [*words, endpoint.chat_url, "100"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            body = {"model": "m", "messages": [{"role": "user", "content": "Is it?"}]}
            with ThreadPoolExecutor(50) as threads:
                statuses = list(threads.map(lambda _: client.post(url, body).status, range(200)))
            process.communicate(timeout=30)
        in_use = endpoint.stats["max_in_flight"]

    assert statuses == [200] * 200
    # Eight at once; the endpoint may count one a little longer than the proxy does.
    assert in_use <= 16


def test_those_waiting_for_room_try_in_place_of_an_opening_that_failed() -> None:
    async def refused(_make: object) -> ClientConnection:
        await asyncio.sleep(0)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    async def ask() -> list[BaseException]:
        connections = Connections(refused, connect_timeout=60, silence=60, total=60, most=2)
        async with asyncio.timeout(20):
            found = await asyncio.gather(*[connections.open() for _ in range(9)], return_exceptions=True)
        return [error for error in found if isinstance(error, BaseException)]

    assert [type(error) for error in asyncio.run(ask())] == [ConnectionRefusedError] * 9


def test_who_stops_opening_lets_the_next_one_try() -> None:
    async def slow(_make: object) -> ClientConnection:
        await asyncio.sleep(60)
        raise AssertionError

    async def ask() -> bool:
        connections = Connections(slow, connect_timeout=60, silence=60, total=60, most=1)
        async with asyncio.timeout(20):
            first, second = asyncio.create_task(connections.open()), asyncio.create_task(connections.open())
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.wait([first])
            third = asyncio.create_task(connections.open())
            await asyncio.sleep(0.01)
            second.cancel()
            await asyncio.wait([second])
            third.cancel()
            await asyncio.wait([third])
        return first.cancelled() and second.cancelled() and third.cancelled()

    assert asyncio.run(ask())
