"""Failures of the endpoint reach the harness as what they are."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import socket
import struct
import threading
import time
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve, ServeRaw

from nemo_evaluator.adapters.context import Ends
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.proxy import RunningProxy, Upstream, running_proxy
from nemo_evaluator.adapters.server import HarnessServer, ServedRoute
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.testing import FakeEndpoint

CHAT = {"model": "m", "messages": [{"role": "user", "content": "?"}]}


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _wait_until_idle(proxy: RunningProxy) -> None:
    deadline = time.monotonic() + 10
    while proxy.stats().in_flight and time.monotonic() < deadline:
        time.sleep(0.005)


def test_nobody_listens(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with running_proxy(Upstream(f"http://127.0.0.1:{port}/v1/chat/completions?key=s3cret")) as proxy:
        reply = client.post(proxy.url)
        stats = proxy.stats()
    error = reply.json()["error"]
    assert reply.status == 502
    assert (error["type"], error["code"]) == ("upstream_error", "connection_failed")
    assert f"127.0.0.1:{port}" in error["message"]
    assert "s3cret" not in error["message"]
    assert (stats.answered, stats.connection_failures, stats.responses) == (0, 1, 0)
    assert stats.by_status == {502: 1}
    assert stats.recent_failures[0].status == 502


def test_the_hosts_name_does_not_exist(client: Client) -> None:
    with running_proxy(Upstream("http://no-such-host.invalid/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url)
    assert reply.status == 502
    assert "no-such-host.invalid" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"choices": [',
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"cho',
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"garbage that is no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "short body", "short chunk", "bad chunk", "garbage", "two lengths", "huge header"],
)
@pytest.mark.parametrize("ending", ["close", "reset"])
def test_an_answer_that_is_no_answer_is_a_502(client: Client, serve_raw: ServeRaw, answer: bytes, ending: str) -> None:
    def respond(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(answer)
        if ending == "reset":
            _reset(connection)

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url)
        stats = proxy.stats()
    assert reply.status == 502
    assert reply.json()["error"]["code"] == "connection_failed"
    assert (stats.answered, stats.connection_failures) == (0, 1)


def test_a_silent_endpoint_is_a_504(client: Client) -> None:
    with (
        FakeEndpoint("x", latency=30) as endpoint,
        running_proxy(Upstream(endpoint.chat_url, request_timeout=0.2)) as proxy,
    ):
        reply = client.post(proxy.url, CHAT)
        stats = proxy.stats()
    assert reply.status == 504
    assert reply.json()["error"]["code"] == "timeout"
    assert "0.2 s" in reply.json()["error"]["message"]
    assert (stats.connection_failures, stats.by_status) == (1, {504: 1})


def test_an_answer_that_takes_longer_than_the_silence_allowed_passes(client: Client) -> None:
    with (
        FakeEndpoint("x " * 50, faults=["drip,seconds=2.5"]) as endpoint,
        running_proxy(Upstream(endpoint.chat_url, request_timeout=1.5)) as proxy,
    ):
        assert client.post(proxy.url, CHAT).status == 200


def test_an_answer_that_never_ends_is_a_504(client: Client) -> None:
    with (
        FakeEndpoint("x " * 500, faults=["drip,seconds=60"]) as endpoint,
        running_proxy(Upstream(endpoint.chat_url, total_timeout=0.5)) as proxy,
    ):
        reply = client.post(proxy.url, CHAT)
    assert reply.status == 504
    assert "0.5 s" in reply.json()["error"]["message"]


def test_a_stream_that_is_cut_never_looks_complete(serve: Serve, client: Client) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n')
        # A tidy end of the body, but no finish reason and no [DONE].
        await response.write_eof()
        return response

    with running_proxy(Upstream(f"{serve(cut)}/v1/chat/completions")) as proxy:
        with pytest.raises(http.client.IncompleteRead):
            client.post(proxy.url)
        _wait_until_idle(proxy)
        stats = proxy.stats()
    assert (stats.requests, stats.answered, stats.connection_failures) == (1, 0, 1)
    assert "before it was complete" in stats.recent_failures[0].message


def test_a_stream_that_breaks_off_breaks_off_for_the_harness(serve_raw: ServeRaw, client: Client) -> None:
    def respond(connection: socket.socket, _request: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"8\r\ndata: 1\n\r\n")

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        with pytest.raises(http.client.IncompleteRead):
            client.post(proxy.url)
        _wait_until_idle(proxy)
        assert proxy.stats().connection_failures == 1


def test_an_http_1_0_client_sees_a_broken_stream_as_a_reset(serve_raw: ServeRaw) -> None:
    def respond(connection: socket.socket, _request: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"8\r\ndata: 1\n\r\n")

    with running_proxy(Upstream(f"{serve_raw(respond)}/v1/chat/completions")) as proxy:
        parts = urlsplit(proxy.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
            connection.sendall(f"POST {parts.path} HTTP/1.0\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            with pytest.raises(ConnectionResetError):
                connection.makefile("rb").read()


@pytest.mark.parametrize("content_type", ["application/json", "text/plain"])
def test_an_answer_over_the_limit_is_cut_off(serve: Serve, client: Client, content_type: str) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    with running_proxy(Upstream(f"{serve(endless)}/v1/chat/completions", max_response_bytes=1_000_000)) as proxy:
        if content_type == "application/json":
            reply = client.post(proxy.url)
            assert reply.status == 502
            assert reply.json()["error"]["code"] == "answer_too_large"
        else:
            with pytest.raises(http.client.IncompleteRead):
                client.post(proxy.url)
        _wait_until_idle(proxy)
        assert proxy.stats().connection_failures == 1


def test_a_packed_stream_that_unpacks_beyond_the_limit_is_cut_off(serve: Serve, client: Client) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000, compresslevel=1)

    async def respond(_request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
        return web.Response(body=bomb, headers=headers)

    with running_proxy(Upstream(f"{serve(respond)}/v1/chat/completions", max_response_bytes=1_000_000)) as proxy:
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            client.post(proxy.url)
        _wait_until_idle(proxy)
        assert proxy.stats().answered == 0


def test_a_harness_that_leaves_ends_the_request_at_the_endpoint(serve: Serve) -> None:
    arrived, left = threading.Event(), threading.Event()

    async def slow(_request: web.Request) -> web.Response:
        arrived.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            left.set()
            raise
        return web.Response()

    with running_proxy(Upstream(f"{serve(slow)}/v1/chat/completions")) as proxy:
        parts = urlsplit(proxy.url)
        connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)
        connection.sendall(f"POST {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert arrived.wait(10)
        connection.close()
        assert left.wait(10), "the endpoint still works on a request that nobody waits for"
        _wait_until_idle(proxy)
        stats = proxy.stats()
    assert (stats.requests, stats.abandoned, stats.answered, stats.in_flight) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("coding", "body", "code"),
    [
        ("br", b"\x0b\x02\x80{}\x03", "unreadable_answer"),
        ("gzip", b"no gzip", "unreadable_answer"),
        ("gzip", gzip.compress(b'{"choices": []}')[:-12], "unreadable_answer"),
        ("gzip", gzip.compress(b'"' + b"0" * 70_000_000 + b'"', compresslevel=1), "answer_too_large"),
    ],
    ids=["unknown coding", "broken", "cut", "huge"],
)
def test_an_answer_that_cannot_be_unpacked_is_the_endpoints_failure(
    serve: Serve, client: Client, caplog: pytest.LogCaptureFixture, coding: str, body: bytes, *, code: str
) -> None:
    async def respond(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": "application/json", "Content-Encoding": coding})

    with running_proxy(Upstream(f"{serve(respond)}/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url)
        stats = proxy.stats()
    assert reply.status == 502
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("upstream_error", code)
    assert (stats.answered, stats.connection_failures, stats.interceptor_failures) == (0, 1, 0)
    assert stats.recent_failures[-1].message == error["message"]
    assert caplog.records == []


def test_a_failure_of_an_interceptor_is_logged_in_one_line(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    chain = [InterceptorConfig(name="system_message", config={"system_message": "Be brief."})]
    with running_proxy(Upstream("http://127.0.0.1:9/v1/chat/completions"), chain) as proxy:
        assert client.post(proxy.url, b"{}").status == 500
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    assert "interceptor 'system_message' failed" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_an_interceptor_that_always_fails_does_not_flood_the_log(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    chain = [InterceptorConfig(name="system_message", config={"system_message": "Be brief."})]
    with running_proxy(Upstream("http://127.0.0.1:9/v1/chat/completions"), chain) as proxy:
        assert [client.post(proxy.url, b"{}").status for _ in range(12)] == [500] * 12
        stats = proxy.stats()
    assert stats.interceptor_failures == 12
    assert len(caplog.records) == 5
    assert "not logged" in caplog.records[-1].getMessage()


def test_a_fault_of_the_proxy_is_an_answer_and_one_line_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    async def chain(request: Request) -> Response:
        raise RuntimeError(f"first line\nheader {request.headers['Authorization']}")

    upstream, stats = Upstream("http://127.0.0.1:9/v1/chat/completions"), StatsRecorder()

    async def ask() -> bytes:
        route = ServedRoute(token="t", name="model", upstream=upstream, chain=chain, stats=stats)
        protocols = HarnessServer([route], ends=Ends()).protocol_factory()
        async with await asyncio.get_running_loop().create_server(protocols, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            head = "POST /t/v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2"
            writer.write(f"{head}\r\nAuthorization: Bearer hunter2\r\n\r\n{{}}".encode())
            answer = await reader.read()
            writer.close()
            await protocols.shutdown(1)
            return answer

    answer = asyncio.run(ask())
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"'endpoint'" in answer
    assert b"hunter2" not in answer
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    assert record.getMessage() == (
        "the proxy failed at the stage 'endpoint': RuntimeError: first line header <redacted>"
    )
    assert stats.snapshot().interceptor_failures == 1


def test_error_texts_are_kept_short_and_without_the_key(serve: Serve, client: Client) -> None:
    key = "nvapi-0123456789abcdefghij"

    async def refuse(request: web.Request) -> web.Response:
        text = f"Incorrect API key provided: {request.headers['Authorization'].split()[1]}. " + "Long story. " * 100
        return web.json_response({"error": {"message": text}}, status=401)

    with running_proxy(Upstream(f"{serve(refuse)}/v1/chat/completions")) as proxy:
        for _ in range(20):
            client.post(proxy.url, headers={"Authorization": f"Bearer {key}"})
        failures = proxy.stats().recent_failures
    assert 0 < len(failures) <= 5
    assert all(failure.status == 401 for failure in failures)
    assert all("Incorrect API key provided: <redacted>" in failure.message for failure in failures)
    assert all(len(failure.message) <= 300 and key not in failure.message for failure in failures)


def test_faults_of_every_kind_are_counted_to_the_last_one(client: Client) -> None:
    faults = [
        "429,at=0,retry_after=1",
        "500,at=1",
        # On a kept connection a reset may mean that it was closed: the request is sent once more.
        "reset,at=2",
        "reset,at=3",
        "reset_mid_body,at=4",
        "html,at=5",
        "malformed_json,at=6",
    ]
    with FakeEndpoint("x", faults=faults) as endpoint, running_proxy(Upstream(endpoint.chat_url)) as proxy:
        statuses = [client.post(proxy.url, CHAT).status for _ in range(8)]
        stats = proxy.stats()
    assert statuses == [429, 500, 502, 502, 200, 200, 200, 200]
    assert stats.by_status == {429: 1, 500: 1, 502: 2, 200: 4}
    assert stats.upstream_by_status == {429: 1, 500: 1, 200: 4}
    # A page of HTML and half a JSON document come with status 200, but are no answers.
    assert (stats.requests, stats.answered, stats.unusable, stats.connection_failures) == (8, 2, 2, 2)
    assert (stats.sent, stats.retried) == (9, 1)
    assert stats.prompt_tokens.answers == 2
