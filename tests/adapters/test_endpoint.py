"""Exchanges with the endpoint: how they end, and when."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import pytest
from multidict import CIMultiDict
from tests.adapters.conftest import ServeRaw
from tests.adapters.exchanges import EVENTS, JSON, WHOLE, fetch, opened, post, sends, upstream

from nemo_evaluator.adapters.endpoint import Endpoint
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.upstream import Upstream


def test_a_line_of_a_megabyte_and_half_characters_pass_in_a_stream(serve_raw: ServeRaw) -> None:
    line = b'data: {"choices": [{"delta": {"content": "' + "\u00e9".encode() * 500_000 + b'"}}]}\n\n'
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    text = line + end
    pieces = [text[start : start + 9_999] for start in range(0, len(text), 9_999)]
    chunks = [b"%x\r\n" % len(piece) + piece + b"\r\n" for piece in pieces]
    url = sends(serve_raw, EVENTS + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")
    response, body = fetch(upstream(url))
    assert body == text
    assert response.exchange is not None
    assert response.exchange.is_usable
    assert response.exchange.facts.finish_reasons == ["stop"]
    assert (response.exchange.body, response.exchange.received) == (text, len(text))


def test_a_stream_that_is_cut_after_done_is_complete(serve_raw: ServeRaw) -> None:
    text = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n'
    chunk = b"%x\r\n" % len(text) + text + b"\r\n"
    response, body = fetch(upstream(sends(serve_raw, EVENTS + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)))
    assert body == text
    assert response.exchange is not None
    assert response.exchange.is_usable


def test_an_exchange_without_a_question_is_over_too(serve_raw: ServeRaw) -> None:
    answers = iter([JSON, JSON.replace(b"application/json", b"text/plain")])

    def respond(connection: socket.socket, request: bytes) -> None:
        assert b"Content-Length" not in request
        connection.sendall(next(answers) + b"Connection: close\r\nContent-Length: 2\r\n\r\n[]")

    url = serve_raw(respond)
    for _ in range(2):
        response, _body = fetch(upstream(url), Request("GET", f"{url}/v1/models", CIMultiDict(), b""))
        assert response.exchange is not None
        assert (response.exchange.is_over, response.exchange.failure) == (True, None)


def test_a_stream_that_nobody_reads_is_held_back_at_the_endpoint(serve_raw: ServeRaw) -> None:
    sent, finished = [0], threading.Event()
    total = 64 * 1024 * 1024

    def respond(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % total)
        while sent[0] < total:
            sent[0] += connection.send(b"x" * 65536)
        finished.set()

    async def run(url: str) -> None:
        async with opened(upstream(url, most_bytes=total, seconds=0.2)) as endpoint:
            response = await endpoint(post(url))
            # A harness that is slower than the silence that the endpoint is allowed.
            await asyncio.sleep(0.5)
            held = sent[0]
            assert held < total // 2
            assert not finished.is_set()
            assert len(await response.read_raw()) == total

    asyncio.run(run(serve_raw(respond)))
    assert finished.is_set()


@pytest.mark.parametrize("when", ["before the answer", "in the stream", "closed"])
def test_a_request_that_nobody_waits_for_ends_its_connection(serve_raw: ServeRaw, when: str) -> None:
    arrived, ended = threading.Event(), threading.Event()

    def respond(connection: socket.socket, _request: bytes) -> None:
        if when != "before the answer":
            connection.sendall(EVENTS + b"Transfer-Encoding: chunked\r\n\r\n3\r\n: x\r\n")
        arrived.set()
        assert connection.recv(1) == b""
        ended.set()

    async def ask(endpoint: Endpoint, url: str) -> Response:
        response = await endpoint(post(url))
        if when == "in the stream":
            await response.read_raw()
        return response

    async def run(url: str) -> None:
        async with opened(upstream(url)) as endpoint:
            task = asyncio.ensure_future(ask(endpoint, url))
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, arrived.wait, 20)
            if when == "closed":
                response = await task
                await response.aclose()
                assert response.exchange is not None
                assert response.exchange.failure == "the answer was not read to its end"
            else:
                await asyncio.sleep(0.02)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            assert await loop.run_in_executor(None, ended.wait, 20)

    asyncio.run(run(serve_raw(respond)))


@pytest.mark.parametrize(("seconds", "total"), [(0.1, 20), (20, 0.1)])
@pytest.mark.parametrize(
    "begin", [b"", b"HTTP/1.1 200 OK\r\n", JSON + b"Content-Length: 9\r\n\r\n{", EVENTS + b"\r\n: x\n"]
)
def test_time_runs_out_wherever_the_answer_stops(
    serve_raw: ServeRaw, begin: bytes, seconds: float, total: float
) -> None:
    done = threading.Event()

    def respond(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(begin)
        done.wait(20)

    try:
        with pytest.raises(UpstreamFailure, match=r"0\.1 s") as caught:
            fetch(upstream(serve_raw(respond), seconds=seconds, total=total))
    finally:
        done.set()
    assert (caught.value.status, caught.value.code) == (504, "timeout")


def test_silence_is_measured_from_the_last_byte(serve_raw: ServeRaw) -> None:
    def respond(connection: socket.socket, _request: bytes) -> None:
        for byte in WHOLE[:12]:
            connection.sendall(bytes([byte]))
            threading.Event().wait(0.1)
        connection.sendall(WHOLE[12:])

    response, _ = fetch(upstream(serve_raw(respond), seconds=0.8))
    assert response.status == 200


def test_no_connection_in_time_is_a_failure_of_its_own() -> None:
    # A listener whose queue is full leaves connections waiting.
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003  the standard library's signature
            waiting.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        with pytest.raises(UpstreamFailure, match=r"within 0\.2 s") as caught:
            fetch(
                Upstream(f"http://127.0.0.1:{port}/v1", connect_timeout=0.2),
                Request("GET", f"http://127.0.0.1:{port}/v1", CIMultiDict(), b""),
            )
    assert (caught.value.status, caught.value.code) == (504, "connect_timeout")


def test_thousands_of_requests_wait_side_by_side() -> None:
    """Each has its connection, none of which is opened by a thread or kept up by another."""
    count, waiting = 2_000, 0

    async def run() -> None:
        nonlocal waiting
        all_there = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal waiting
            await reader.readuntil(b"\r\n\r\n{}")
            waiting += 1
            if waiting == count:
                all_there.set()
            # Nobody is answered before all have asked.
            await all_there.wait()
            writer.write(WHOLE)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096) as server:
            port = server.sockets[0].getsockname()[1]
            for host in ("127.0.0.1", "localhost"):
                waiting = 0
                all_there.clear()
                url = f"http://{host}:{port}"
                async with opened(upstream(url)) as endpoint:
                    responses = await asyncio.gather(*[endpoint(post(url)) for _ in range(count)])
                assert [response.status for response in responses] == [200] * count

    asyncio.run(asyncio.wait_for(run(), 60))
