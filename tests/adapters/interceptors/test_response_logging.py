from __future__ import annotations

import asyncio
import gzip
import http.client
import logging
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve, ServeRaw
from tests.adapters.interceptors.conftest import Behind, Recorder
from tests.adapters.interceptors.exchange_lines import LOGGER, SECRET, check_parts, lines

from nemo_evaluator.adapters.proxy import Upstream, running_proxy
from nemo_evaluator.api.adapter_config import InterceptorConfig

ANSWER = b'{"choices": [{"message": {"content": "<think>hm</think>yes"}, "finish_reason": "stop"}]}'


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=LOGGER)


def chain(name: str, **parameters: Any) -> list[InterceptorConfig]:
    return [InterceptorConfig(name=name, config=parameters)]


def test_answers_are_logged_as_the_harness_sees_them(
    behind: Behind, client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.body = ANSWER
    proxy = behind(("response_logging", {}), ("reasoning", {}))
    client.post(proxy.url, {"a": 1}, headers={"X-Sample-Id": "s1"})
    client.ask("GET", proxy.url.removesuffix("/chat/completions") + "/models")
    (line,) = lines(caplog)
    assert line.startswith("Outgoing response: 200 to POST http://127.0.0.1:")
    assert "sample s1" in line
    assert '"Content-Type": "application/json"' in line
    assert '"content": "yes"' in line or '"content":"yes"' in line
    assert "hm" not in line


@pytest.mark.parametrize(
    ("parameters", "count", "has_headers", "has_body"),
    [
        ({}, 3, True, True),
        ({"max_responses": 2, "log_response_body": False}, 2, True, False),
        ({"max_responses": 1, "log_response_headers": False}, 1, False, True),
        ({"max_responses": 0}, 0, False, False),
    ],
)
def test_how_many_and_what_is_logged(
    behind: Behind,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    *,
    parameters: dict[str, Any],
    count: int,
    has_headers: bool,
    has_body: bool,
) -> None:
    proxy = behind(("response_logging", parameters))
    check_parts(proxy, client, caplog, count=count, parts={"headers": has_headers, "body": has_body})


@pytest.mark.parametrize("name", ["response_logging", "failed_request_logging"])
def test_secrets_are_hidden(serve: Serve, client: Client, caplog: pytest.LogCaptureFixture, name: str) -> None:
    async def handle(_: web.Request) -> web.Response:
        headers = {"Set-Cookie": f"session={SECRET}-2", "X-Request-Id": "r1"}
        return web.json_response({"error": {"message": f"the key {SECRET} is unknown"}}, status=401, headers=headers)

    with running_proxy(Upstream(f"{serve(handle)}/v1/chat/completions"), chain(name)) as proxy:
        client.post(proxy.url, {"a": 1}, headers={"Authorization": f"Bearer {SECRET}"})
    (line,) = lines(caplog) + lines(caplog, logging.ERROR)
    assert "the key <redacted> is unknown" in line
    assert '"Set-Cookie": "<redacted>"' in line
    assert '"X-Request-Id": "r1"' in line
    assert SECRET not in line


@pytest.mark.parametrize("packed", [False, True])
def test_a_stream_is_passed_on_as_it_comes_and_logged_at_its_end(
    serve: Serve, caplog: pytest.LogCaptureFixture, *, packed: bool
) -> None:
    may_go_on = threading.Event()
    events = [
        b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "two"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
    ]

    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream"} | ({"Content-Encoding": "gzip"} if packed else {})
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        whole = gzip.compress(b"".join(events))
        pieces = [whole[:10], whole[10:]] if packed else events
        await response.write(pieces[0])
        await asyncio.to_thread(may_go_on.wait, 20)
        await response.write(pieces[1])
        return response

    with running_proxy(Upstream(f"{serve(handle)}/v1/chat/completions"), chain("response_logging")) as proxy:
        parts = urlsplit(proxy.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        connection.request("POST", parts.path, b"{}", {"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        first = response.read1()
        assert first
        assert lines(caplog) == []
        may_go_on.set()
        rest = response.read()
        connection.close()
    received = gzip.decompress(first + rest) if packed else first + rest
    assert received == b"".join(events)
    (line,) = lines(caplog)
    assert '"content": "one"' in line
    assert line.endswith("data: [DONE]")


def test_a_stream_that_breaks_off_is_logged_as_what_it_is(
    serve_raw: ServeRaw, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(connection: socket.socket, _request: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        event = b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(event), event))

    links = [*chain("response_logging"), *chain("failed_request_logging")]
    with running_proxy(Upstream(f"{serve_raw(answer)}/v1/chat/completions"), links) as proxy:
        with pytest.raises((http.client.IncompleteRead, OSError)):
            client.post(proxy.url)
        proxy.stop()
    (line,) = lines(caplog)
    assert '"one"' in line
    assert "(incomplete: " in line
    (failed,) = lines(caplog, logging.ERROR)
    assert "no usable answer: " in failed


@pytest.mark.parametrize(
    ("status", "body", "kind", "expected"),
    [
        (400, b'{"error": {"message": "too long"}}', "application/json", "-> 400 "),
        (503, b"down for repair", "text/plain", "down for repair"),
        (200, b"<html>sign in</html>", "text/html", "no usable answer: "),
        (200, b'{"error": {"message": "overloaded"}}', "application/json", "overloaded"),
    ],
)
def test_failed_requests_are_logged_with_what_came_back(
    behind: Behind,
    client: Client,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
    *,
    status: int,
    body: bytes,
    kind: str,
    expected: str,
) -> None:
    proxy = behind(("failed_request_logging", {}))
    recorder.body = ANSWER
    client.post(proxy.url, {"n": 1})
    recorder.status, recorder.body, recorder.content_type = status, body, kind
    client.post(proxy.url, {"n": 2}, headers={"Authorization": f"Bearer {SECRET}"})
    proxy.stop()
    (line,) = lines(caplog, logging.ERROR)
    assert line.startswith("Failed request: POST ")
    assert '{"n": 2}' in line
    assert expected in line
    assert SECRET not in line


def test_requests_without_any_answer_are_logged_too(
    serve_raw: ServeRaw, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    origin = serve_raw(lambda connection, _request: connection.close())
    with running_proxy(Upstream(f"{origin}/v1/chat/completions"), chain("failed_request_logging")) as proxy:
        assert client.post(proxy.url, {"n": 1}).status == 502
    (line,) = lines(caplog, logging.ERROR)
    assert '{"n": 1}' in line
    assert "-> failed: the exchange with" in line


def test_requests_that_an_interceptor_failed_on_are_logged_too(
    behind: Behind, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = behind(("failed_request_logging", {}), ("system_message", {"system_message": "x"}))
    assert client.post(proxy.url, {"prompt": "y"}).status == 500
    (line,) = lines(caplog, logging.ERROR)
    assert "interceptor 'system_message' failed" in line


def test_a_storm_of_failures_does_not_fill_the_log(
    behind: Behind, client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = behind(("failed_request_logging", {"max_failures": 2}))
    recorder.status = 500
    for _ in range(5):
        client.post(proxy.url)
    logged = lines(caplog, logging.ERROR)
    assert len(logged) == 3
    assert "max_failures" in logged[2]
