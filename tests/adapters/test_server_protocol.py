"""The life of the harness's connections: who leaves, who stalls, and the end of the proxy."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator

import pytest
from tests.adapters.served import (
    CLOSE,
    PATH,
    Stream,
    answer,
    body_of,
    head_of,
    post,
    read_all,
    read_until,
    serving,
    wait_until,
)

from nemo_evaluator.adapters import server
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.server_protocol import SWEEP_SECONDS, Connection
from nemo_evaluator.adapters.server_reader import RequestReader


def _takes(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except ConnectionError:
        return False
    return True


def test_a_client_that_never_reads_stops_the_stream_and_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALLED_SECONDS", 0.5)
    made = 0
    chunk = b"x" * 65536

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += len(chunk)
            yield chunk

    stream = Stream(endless())

    async def chain(_request: Request) -> Response:
        return answer(stream)

    with serving(chain) as served, served.connect() as connection:
        connection.sendall(post())
        wait_until(lambda: stream.is_closed)
        served.wait_until_idle()
        stats = served.stats.snapshot()
    assert made < 50_000_000
    assert (stats.abandoned, stats.answered) == (1, 0)


def test_a_slow_reader_gets_all_of_a_large_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALLED_SECONDS", 1.0)
    body = b"x" * 8_000_000

    async def chain(_request: Request) -> Response:
        return answer(body)

    with serving(chain) as served, served.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(post(b"{}", CLOSE))
        size, pause = 0, threading.Event()
        while chunk := connection.recv(250_000):
            size += len(chunk)
            pause.wait(0.03)
    assert size > len(body)


def test_a_client_that_leaves_cancels_its_request_and_those_behind_it() -> None:
    cancelled = threading.Event()

    async def chain(_request: Request) -> Response:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return answer()

    with serving(chain) as served:
        with served.connect() as connection:
            connection.sendall(post())
            wait_until(lambda: len(served.requests) == 1)
        assert cancelled.wait(20)
        served.wait_until_idle()
        stats = served.stats.snapshot()
    assert (stats.requests, stats.abandoned, stats.answered) == (1, 1, 0)


def test_a_client_that_leaves_before_its_request_is_complete_has_abandoned_it() -> None:
    with serving() as served:
        with served.connect() as connection:
            connection.sendall(post(b"{}")[:-1])
            wait_until(lambda: served.stats.snapshot().in_flight == 1)
        served.wait_until_idle()
        stats = served.stats.snapshot()
    assert (stats.requests, stats.abandoned, stats.answered) == (1, 1, 0)
    assert served.requests == []


def test_after_the_end_of_the_run_posts_are_refused_and_the_rest_passes() -> None:
    with serving() as served:
        served.ends.end("the budget is used up", "budget", status=429)
        refused = served.say(post(b"{}", CLOSE))
        other = served.say(f"GET {PATH} HTTP/1.1\r\nHost: proxy\r\n{CLOSE}\r\n\r\n".encode())
    assert head_of(refused)[0] == "HTTP/1.1 429 Too Many Requests"
    assert b'"run_ended"' in refused
    assert b'"budget"' in refused
    assert head_of(other)[0] == "HTTP/1.1 200 OK"
    assert [request.method for request in served.requests] == ["GET"]


def test_a_refused_request_is_counted_and_its_client_sees_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_REQUEST_BYTES", 1000)
    with serving() as served:
        with served.connect() as connection:
            # Announced as too large: it is refused at its head, and what is sent all the same is read and dropped.
            connection.sendall(post(b"x" * 3_000_000, "Expect: 100-continue"))
            received = read_all(connection)
        chunked = post(b"", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
        found_later = served.say(chunked + b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n")
        stats = served.stats.snapshot()
    for seen in (received, found_later):
        assert head_of(seen)[0] == "HTTP/1.1 413 Request Entity Too Large"
        assert CLOSE in head_of(seen)
        assert b"1,000 bytes" in seen
    assert served.requests == []
    assert (stats.requests, stats.by_status, stats.in_flight) == (2, {413: 2}, 0)


def test_a_connection_without_requests_is_closed_after_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IDLE_SECONDS", 0.2)

    async def chain(_request: Request) -> Response:
        await asyncio.sleep(2)
        return answer(b"slow")

    with serving(chain) as served, served.connect() as idle, served.connect() as busy:
        busy.sendall(post())
        assert read_all(idle) == b""
        # Who waits for an answer is not idle, and gets it before the connection is closed.
        assert served.stats.snapshot().in_flight == 1
        assert body_of(read_all(busy)) == b"slow"


def test_the_rest_of_a_refused_request_is_read_for_a_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_LINGER_SECONDS", 0.2)
    with serving() as served, served.connect() as connection:
        connection.sendall(b"no request\r\n\r\n")
        assert head_of(read_all(connection))[0] == "HTTP/1.1 400 Bad Request"
        wait_until(lambda: not _takes(connection, b"more"))


def test_a_stop_lets_answers_end_and_cancels_what_takes_longer() -> None:
    began = threading.Barrier(3)

    async def chain(request: Request) -> Response:
        await asyncio.to_thread(began.wait, 20)
        await asyncio.sleep(0.05 if request.body == b"quick" else 60)
        return answer(request.body)

    with serving(chain) as served:
        quick, slow, idle = served.connect(), served.connect(), served.connect()
        quick.sendall(post(b"quick"))
        slow.sendall(post(b"slow"))
        began.wait(20)
    assert body_of(read_all(quick)) == b"quick"
    assert read_all(slow) == read_all(idle) == b""
    for connection in (quick, slow, idle):
        connection.close()
    stats = served.stats.snapshot()
    assert (stats.answered, stats.abandoned, stats.in_flight) == (1, 1, 0)


def test_connections_leave_nothing_behind_for_the_garbage_collector() -> None:
    def alive() -> int:
        return sum(isinstance(found, (Connection, RequestReader)) for found in gc.get_objects())

    with serving() as served:
        gc.collect()
        gc.disable()
        before = alive()
        try:
            for number in range(20):
                with served.connect() as connection:
                    connection.sendall(post()[: -1 if number % 2 else None])
                    connection.shutdown(socket.SHUT_WR)
                    read_all(connection)
            wait_until(lambda: alive() == before)
        finally:
            gc.enable()


def test_a_client_that_only_ends_what_it_sends_gets_its_answer() -> None:
    async def chain(_request: Request) -> Response:
        await asyncio.sleep(0.2)
        return answer(b'"here"')

    with serving(chain) as served, served.connect() as connection:
        connection.sendall(post() + post())
        connection.shutdown(socket.SHUT_WR)
        received = read_all(connection)
        assert received.count(b'"here"') == 2
        assert served.stats.snapshot().abandoned == 0


def test_the_time_of_a_request_begins_with_it_on_a_connection_that_was_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_REQUEST_SECONDS", 2.0)
    with serving() as served, served.connect() as connection:
        connection.sendall(post(b'"first"'))
        assert b"200" in read_until(connection, b'"first"')
        time.sleep(2.5)
        request = post(b'"second"')
        connection.sendall(request[:-4])
        time.sleep(3 * SWEEP_SECONDS / 2)
        connection.sendall(request[-4:])
        assert b"200" in read_until(connection, b'"second"')
