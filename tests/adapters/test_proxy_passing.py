"""What goes through the proxy comes out as it went in."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve, ServeRaw

from nemo_evaluator.adapters.proxy import Upstream, running_proxy
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.testing import FakeEndpoint


async def _echo(request: web.Request) -> web.Response:
    document = {
        "method": request.method,
        "target": request.raw_path,
        "headers": [[name.lower(), value] for name, value in request.headers.items()],
        "length": len(await request.read()),
    }
    return web.json_response(document, headers={"X-Served-By": "echo"})


@pytest.fixture
def echo(serve: Serve) -> str:
    return serve(_echo)


def test_a_chat_request_is_answered_and_counted(client: Client) -> None:
    with FakeEndpoint("forty-two") as endpoint, running_proxy(Upstream(endpoint.chat_url)) as proxy:
        body = {"model": "m", "messages": [{"role": "user", "content": "six by seven?"}]}
        reply = client.post(proxy.url, body)
        assert reply.status == 200
        assert reply.json()["choices"][0]["message"]["content"] == "forty-two"
        assert endpoint.requests[0].body == body
        stats = proxy.stats()
    assert (stats.requests, stats.answered, stats.in_flight) == (1, 1, 0)
    assert stats.finish_reasons == {"stop": 1}
    assert stats.prompt_tokens.sum > 0
    assert stats.bytes_received == len(reply.body)


def test_the_url_has_the_endpoints_path_and_none_of_its_secrets(echo: str) -> None:
    url = f"{echo.replace('http://', 'http://user:hunter2@')}/v1/chat/completions?key=s3cret"
    with running_proxy(Upstream(url)) as proxy:
        parts = urlsplit(proxy.url)
    assert parts.path.endswith("/v1/chat/completions")
    assert not parts.query
    assert "hunter2" not in proxy.url
    assert "s3cret" not in proxy.url


def test_the_endpoint_gets_its_query_its_credentials_and_the_harnesss_headers(client: Client, echo: str) -> None:
    url = f"{echo.replace('http://', 'http://user:pass@')}/v1/chat/completions?api-version=3"
    with running_proxy(Upstream(url)) as proxy:
        seen = client.post(proxy.url, b"{}", headers={"X-Run": "7", "User-Agent": "harness"}).json()
    headers = dict(seen["headers"])
    assert seen["target"] == "/v1/chat/completions?api-version=3"
    assert headers["authorization"] == "Basic dXNlcjpwYXNz"
    assert headers["x-run"] == "7"
    assert headers["user-agent"] == "harness"
    assert headers["host"] == urlsplit(echo).netloc
    assert headers["content-length"] == "2"
    assert "transfer-encoding" not in headers


def test_the_samples_name_is_for_the_proxy_only(client: Client, echo: str) -> None:
    with running_proxy(Upstream(f"{echo}/v1/chat/completions")) as proxy:
        seen = client.post(proxy.url, b"{}", headers={"X-Sample-Id": "gpqa-17", "X-Request-Id": "r1"}).json()
    headers = dict(seen["headers"])
    assert "x-sample-id" not in headers
    assert headers["x-request-id"] == "r1"


@pytest.mark.parametrize("size", [0, 1, 300_000, 50_000_000])
def test_bodies_of_any_size_arrive_byte_for_byte(client: Client, serve: Serve, size: int) -> None:
    async def mirror(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), content_type="application/octet-stream")

    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    with running_proxy(Upstream(f"{serve(mirror)}/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url, body)
        assert proxy.stats().bytes_sent == size
    assert reply.status == 200
    assert reply.body == body


def test_a_json_answer_keeps_its_bytes(client: Client, serve: Serve) -> None:
    body = b'{ "b" : 1.0,\n "a" : "\\u00e9", "big": 123456789012345678901234567890 }'

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json", headers={"X-Request-Id": "r1"})

    with running_proxy(Upstream(f"{serve(answer)}/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url)
    assert reply.body == body
    assert reply.headers["X-Request-Id"] == "r1"


@pytest.mark.parametrize("status", [201, 400, 401, 404, 408, 413, 422, 429, 500, 503, 529])
def test_every_status_passes_as_it_is(client: Client, serve: Serve, status: int) -> None:
    async def answer(_request: web.Request) -> web.Response:
        headers = {"Retry-After": "7", "Location": "http://elsewhere.example/v1"}
        document = {"error": {"message": f"status {status}"}} if status != 201 else {"choices": [{"text": "x"}]}
        return web.json_response(document, status=status, headers=headers)

    with running_proxy(Upstream(f"{serve(answer)}/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url)
        stats = proxy.stats()
    assert reply.status == status
    assert reply.json() == (
        {"error": {"message": f"status {status}"}} if status != 201 else {"choices": [{"text": "x"}]}
    )
    assert reply.headers["Retry-After"] == "7"
    assert reply.headers["Location"] == "http://elsewhere.example/v1"
    assert stats.by_status == stats.upstream_by_status == {status: 1}
    assert stats.answered == (status == 201)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirection_is_not_followed_so_that_keys_stay_where_they_belong(
    client: Client, serve: Serve, status: int
) -> None:
    elsewhere: list[str] = []

    async def other(request: web.Request) -> web.Response:
        elsewhere.append(request.headers.get("Authorization", ""))
        return web.Response()

    other_origin = serve(other)

    async def redirect(_request: web.Request) -> web.Response:
        place = f"{other_origin}/v1/chat/completions?key=s3cret"
        return web.Response(status=status, text="moved", headers={"Location": place, "Refresh": f"0; url={place}"})

    with running_proxy(Upstream(f"{serve(redirect)}/v1/chat/completions"), [InterceptorConfig(name="retry")]) as proxy:
        reply = client.post(proxy.url, headers={"Authorization": "Bearer k", "X-Gateway": "key"})
        stats = proxy.stats()
    assert reply.status == status
    assert reply.json()["error"]["message"] == (
        f"the endpoint answers {status}, a redirection to {other_origin}/v1/chat/completions; redirects are not "
        "followed: give the final URL"
    )
    assert "Location" not in reply.headers
    assert "Refresh" not in reply.headers
    assert (stats.sent, stats.answered, stats.upstream_by_status) == (1, 0, {status: 1})
    assert "redirection" in stats.recent_failures[0].message
    assert elsewhere == []


@pytest.mark.parametrize("location", ["/v2/chat/completions#there", "../../v2/chat/completions"])
def test_a_redirection_to_another_path_is_told_in_full(serve: Serve, client: Client, location: str) -> None:
    async def redirect(_request: web.Request) -> web.Response:
        return web.Response(status=308, headers={"Location": location})

    origin = serve(redirect)
    with running_proxy(Upstream(f"{origin}/v1/chat/completions")) as proxy:
        told = client.post(proxy.url).json()["error"]["message"]
    assert f"a redirection to {origin}/v2/chat/completions;" in told


def test_models_are_listed_below_the_base(client: Client) -> None:
    with FakeEndpoint(model_id="tiny") as endpoint, running_proxy(Upstream(endpoint.chat_url)) as proxy:
        base = proxy.url.removesuffix("/chat/completions")
        reply = client.ask("GET", f"{base}/models")
        stats = proxy.stats()
    assert [model["id"] for model in reply.json()["data"]] == ["tiny"]
    assert (stats.requests, stats.other_requests) == (0, 1)


def test_clients_may_take_the_full_url_for_a_base(client: Client) -> None:
    with FakeEndpoint("yes") as endpoint, running_proxy(Upstream(endpoint.chat_url)) as proxy:
        body = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
        reply = client.post(f"{proxy.url}/chat/completions", body)
    assert reply.status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_every_method_passes(client: Client, echo: str, method: str) -> None:
    with running_proxy(Upstream(f"{echo}/v1/chat/completions")) as proxy:
        seen = client.ask(method, f"{proxy.url.removesuffix('/chat/completions')}/files/1?x=2").json()
    assert (seen["method"], seen["target"]) == (method, "/v1/files/1?x=2")


def test_head_has_the_headers_of_the_answer_and_no_body(client: Client, serve_raw: ServeRaw) -> None:
    def answer(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1234\r\n\r\n")

    with running_proxy(Upstream(f"{serve_raw(answer)}/v1/chat/completions")) as proxy:
        reply = client.ask("HEAD", proxy.url)
    assert reply.status == 200
    assert reply.headers["Content-Length"] == "1234"
    assert reply.body == b""


def test_a_packed_answer_stays_packed_and_its_tokens_are_counted(client: Client, serve: Serve) -> None:
    answer = {"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    packed = gzip.compress(json.dumps(answer).encode())
    asked: list[str] = []

    async def respond(request: web.Request) -> web.Response:
        asked.append(request.headers["Accept-Encoding"])
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=packed, headers=headers)

    with running_proxy(Upstream(f"{serve(respond)}/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url, headers={"Accept-Encoding": "br, gzip;q=0.9, zstd"})
        stats = proxy.stats()
    assert reply.body == packed
    assert reply.headers["Content-Encoding"] == "gzip"
    assert asked == ["gzip;q=0.9"], "a coding that the proxy cannot read must not be asked for"
    assert (stats.prompt_tokens.sum, stats.completion_tokens.sum) == (3, 4)


def test_a_chunked_request_arrives_whole(echo: str) -> None:
    with running_proxy(Upstream(f"{echo}/v1/chat/completions")) as proxy:
        parts = urlsplit(proxy.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        connection.request("POST", parts.path, body=iter([b"abc", b"defg"]), encode_chunked=True)
        seen = json.loads(connection.getresponse().read())
        connection.close()
    assert seen["length"] == 7


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(echo: str) -> None:
    with running_proxy(Upstream(f"{echo}/v1/chat/completions")) as proxy:
        parts = urlsplit(proxy.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
            head = f"POST {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"{}")
            answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"expect"' not in answer


def test_http_1_0_is_understood(echo: str) -> None:
    with running_proxy(Upstream(f"{echo}/v1/chat/completions")) as proxy:
        parts = urlsplit(proxy.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
            connection.sendall(f"POST {parts.path} HTTP/1.0\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
    assert b" 200 OK\r\n" in answer.partition(b"\n")[0] + b"\n"


class _Gate:
    """Holds an answer back until the test has seen what came before."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> bool:
        return await asyncio.get_running_loop().run_in_executor(None, self._open.wait, 20)


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/x-ndjson", "text/plain"])
def test_a_stream_passes_chunk_by_chunk(serve: Callable[..., str], content_type: str) -> None:
    gate = _Gate()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        # Nothing more comes before the test has read the first chunk: a proxy that buffers would hang here.
        assert await gate.passed()
        await response.write(b"data: second\n\n")
        await response.write_eof()
        return response

    with running_proxy(Upstream(f"{serve(stream)}/v1/chat/completions")) as proxy:
        parts = urlsplit(proxy.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        connection.request("POST", parts.path, body=b"{}")
        response = connection.getresponse()
        assert response.read1(1000) == b"data: first\n\n"
        gate.open()
        assert response.read() == b"data: second\n\n"
        connection.close()


def test_events_of_a_model_arrive_in_order_and_are_counted(client: Client) -> None:
    text = "one two three four five six seven eight"
    with FakeEndpoint(text) as endpoint, running_proxy(Upstream(endpoint.chat_url)) as proxy:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "count"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        reply = client.post(proxy.url, body)
        stats = proxy.stats()
    lines = [line for line in reply.body.decode().split("\n") if line.startswith("data: ")]
    events = [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]
    contents = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    assert "".join(contents) == text
    assert lines[-1] == "data: [DONE]"
    assert stats.finish_reasons == {"stop": 1}
    assert stats.completion_tokens.sum > 0
    assert stats.answered == 1


def test_a_client_that_leaves_at_done_has_got_its_answer(serve: Serve) -> None:
    """Clients stop reading at `[DONE]`, when the endpoint may not have ended the stream yet."""
    gate = _Gate()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        event = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
        await response.write(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())
        await gate.passed()
        return response

    with running_proxy(Upstream(f"{serve(stream)}/v1/chat/completions")) as proxy:
        parts = urlsplit(proxy.url)
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
            connection.sendall(f"POST {parts.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            received = b""
            while b"[DONE]" not in received:
                received += connection.recv(65536)
            told = proxy.stats()
        gate.open()
    stats = proxy.stats()
    assert (told.answered, told.in_flight, told.prompt_tokens.sum) == (1, 0, 3)
    assert (stats.requests, stats.answered, stats.abandoned, stats.connection_failures) == (1, 1, 0, 0)
    assert stats.finish_reasons == {"stop": 1}


def test_connections_are_kept_on_both_sides(serve: Serve) -> None:
    peers = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.json_response({})

    with running_proxy(Upstream(f"{serve(answer)}/v1/chat/completions")) as proxy:
        parts = urlsplit(proxy.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        sockets = set()
        for _ in range(5):
            connection.request("POST", parts.path, body=b"{}")
            connection.getresponse().read()
            assert connection.sock is not None
            sockets.add(connection.sock.getsockname())
        connection.close()
    assert len(peers) == 5
    assert len(set(peers)) == 1
    assert len(sockets) == 1


@pytest.mark.parametrize(("announced", "expected"), [("timeout=0", 3), ("timeout=60", 1)])
def test_connections_are_kept_as_long_as_the_endpoint_says(
    client: Client, serve: Serve, announced: str, expected: int
) -> None:
    peers = set()

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.json_response({}, headers={"Keep-Alive": announced})

    with running_proxy(Upstream(f"{serve(answer)}/v1/chat/completions")) as proxy:
        for _ in range(3):
            assert client.post(proxy.url).status == 200
    assert len(peers) == expected


def test_null_content_becomes_empty_as_in_the_compatible_proxy(client: Client) -> None:
    with FakeEndpoint("x", faults=["null_content"]) as endpoint, running_proxy(Upstream(endpoint.chat_url)) as proxy:
        reply = client.post(proxy.url, {"model": "m", "messages": [{"role": "user", "content": "?"}]})
    assert reply.json()["choices"][0]["message"]["content"] == ""


def test_null_in_other_places_stays(client: Client, serve: Serve) -> None:
    body = b'{"choices": [{"logprobs": {"content": null}, "message": {"content": "a \\"content\\": null"}}]}'

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    with running_proxy(Upstream(f"{serve(answer)}/v1/chat/completions")) as proxy:
        assert client.post(proxy.url).body == body
