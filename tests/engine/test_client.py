from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nemo_evaluator.engine.client import Client, Endpoint, Reply, RequestFailedError
from nemo_evaluator.engine.retry import Failure
from nemo_evaluator.errors import UsageError
from nemo_evaluator.testing import FakeEndpoint

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "2+2?"}]}).encode()
GOOD = json.dumps({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}).encode()


def ask(
    url: str, *, key: str | None = None, timeout: float = 10, retries: int = 0, times: int = 1
) -> list[Reply | Failure]:
    async def go() -> list[Reply | Failure]:
        endpoint = Endpoint(url=url, model_type="chat", api_key=key)
        async with Client(endpoint, parallelism=times, timeout=timeout, max_retries=retries) as client:
            return [await _one(client, number) for number in range(times)]

    return asyncio.run(go())


async def _one(client: Client, number: int) -> Reply | Failure:
    try:
        return await client.ask(BODY, request_id=f"run-{number}", sample_id="s")
    except RequestFailedError as error:
        return error.failure


def failure_of(url: str, **settings: Any) -> Failure:
    (failure,) = ask(url, **settings)
    assert isinstance(failure, Failure), failure
    return failure


def reply_of(url: str, **settings: Any) -> Reply:
    (reply,) = ask(url, **settings)
    assert isinstance(reply, Reply), reply
    return reply


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[str]:
    """A server that writes whatever bytes a test wants."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    return head + await reader.readexactly(length)


def ask_raw(handler: Handler, *, key: str | None = None, query: str = "", **settings: Any) -> Reply | Failure:
    async def go() -> Reply | Failure:
        async with raw_server(handler) as url:
            endpoint = Endpoint(url=url + query, model_type="chat", api_key=key)
            client = Client(endpoint, parallelism=1, timeout=5, **{"max_retries": 0, **settings})
            async with client:
                return await _one(client, 0)

    return asyncio.run(go())


def test_answer_with_its_request_in_the_headers() -> None:
    with FakeEndpoint("4") as endpoint:
        reply = reply_of(endpoint.chat_url, key="sk-secret")
        (request,) = endpoint.requests

    assert (reply.answer.text, reply.attempts, reply.request_id) == ("4", 1, "run-0")
    assert 0 < reply.latency < 5
    assert request.headers["x-request-id"] == "run-0"
    assert request.headers["x-sample-id"] == "s"
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert request.headers["content-type"] == "application/json"


def test_endpoint_without_a_key_gets_no_authorization() -> None:
    with FakeEndpoint("4") as endpoint:
        reply_of(endpoint.chat_url)

        assert "authorization" not in endpoint.requests[0].headers


def test_connection_is_kept_for_the_next_request() -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while await read_request(reader):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD))
        except asyncio.IncompleteReadError:
            writer.close()

    async def go() -> None:
        async with raw_server(handler) as url:
            endpoint = Endpoint(url=url, model_type="chat")
            async with Client(endpoint, parallelism=1, timeout=5, max_retries=0) as client:
                for number in range(5):
                    assert isinstance(await _one(client, number), Reply)

    asyncio.run(go())
    assert connections == 1


def test_url_is_used_exactly_as_given() -> None:
    paths: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths.append((await read_request(reader)).split(b" ")[1])
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD))
        writer.close()

    async def go() -> None:
        async with raw_server(handler) as url:
            base = url.removesuffix("/v1/chat/completions")
            endpoint = Endpoint(url=f"{base}/a%20b/%2F/?v=1&k=a+b%3D&x=;", model_type="chat")
            async with Client(endpoint, parallelism=1, timeout=5, max_retries=0) as client:
                await _one(client, 0)

    asyncio.run(go())
    assert paths == [b"/a%20b/%2F/?v=1&k=a+b%3D&x=;"]


@pytest.mark.parametrize(
    "url", ["", "v1/chat", "ftp://h/x", "http://", "http://h:0/x", "http://h:99999/x", "http://[::1/"]
)
def test_unusable_urls_are_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(UsageError, match="must be absolute and begin with http"):
        Client(Endpoint(url=url, model_type="chat"), parallelism=1, timeout=1, max_retries=0)


@pytest.mark.parametrize(
    "fault",
    [
        "500",
        "503",
        "429,retry_after=0.1",
        "408",
        "reset",
        "reset_mid_body",
        "truncated",
        "malformed_json",
        "html",
        "empty",
        "no_choices",
        "error_body",
    ],
)
def test_passing_faults_are_survived(fault: str) -> None:
    with FakeEndpoint("4", faults=[f"{fault},first=1"]) as endpoint:
        reply = reply_of(endpoint.chat_url, retries=1)

        assert (reply.answer.text, reply.attempts, reply.request_id) == ("4", 2, "run-0.2")
        assert [request.headers["x-request-id"] for request in endpoint.requests] == ["run-0", "run-0.2"]


def test_retries_end() -> None:
    with FakeEndpoint("4", faults=["503"]) as endpoint:
        failure = failure_of(endpoint.chat_url, retries=1)

        assert (failure.kind, failure.status, endpoint.count) == ("http", 503, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_refusals_are_not_retried(status: int) -> None:
    with FakeEndpoint("4", faults=[f"{status},message=the reason"]) as endpoint:
        failure = failure_of(endpoint.chat_url, retries=5)

        assert endpoint.count == 1
    assert (failure.status, failure.message) == (status, f"HTTP {status}: the reason")


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(form: str) -> None:
    # Dates have whole seconds only: two ahead is more than one away.
    seconds = {"seconds": 0.5, "date": 2}[form]
    with FakeEndpoint("4", faults=[f"429,first=1,retry_after={seconds},retry_after_form={form}"]) as endpoint:
        reply_of(endpoint.chat_url, retries=1)

        first, second = endpoint.requests
        assert second.at - first.at >= {"seconds": 0.5, "date": 0.9}[form]


def test_redirections_are_not_followed_and_the_key_stays() -> None:
    with FakeEndpoint("4") as other, FakeEndpoint("4", faults=[f"307,location={other.chat_url}"]) as endpoint:
        failure = failure_of(endpoint.chat_url, key="sk-secret", retries=3)

        assert (endpoint.count, other.count) == (1, 0)
    assert failure.fatal
    assert "a redirection to 127.0.0.1, which is not followed" in failure.message


def test_slow_answer_times_out() -> None:
    with FakeEndpoint("4", faults=["hang,seconds=30"]) as endpoint:
        failure = failure_of(endpoint.chat_url, timeout=0.3)

    assert (failure.kind, failure.message) == ("timeout", "no answer within 0.3 s")


def test_answer_that_drips_times_out_as_a_whole() -> None:
    with FakeEndpoint("4 " * 500, faults=["drip,seconds=30"]) as endpoint:
        assert failure_of(endpoint.chat_url, timeout=0.5).kind == "timeout"


def test_nothing_listens() -> None:
    with FakeEndpoint("4") as endpoint:
        url = endpoint.chat_url

    failure = failure_of(url)
    assert failure.kind == "connection"
    assert failure.retryable


def test_key_that_the_endpoint_repeats_is_not_told() -> None:
    with FakeEndpoint("4", faults=["401,message=the key sk-very-secret is wrong"]) as endpoint:
        failure = failure_of(endpoint.chat_url, key="sk-very-secret")

    assert failure.message == "HTTP 401: the key <redacted> is wrong"


KEY = "nv-0123456789abcdefghijklmnopqrstuvwxyz"


def refusing(status: bytes, body: bytes, *headers: bytes, length: int | None = None) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % (length or len(body)), *headers]
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
        writer.write(body[:20])
        await writer.drain()
        # The second part comes on its own, as over a network.
        await asyncio.sleep(0.02)
        writer.write(body[20:])
        await writer.drain()
        writer.close()

    return handler


@pytest.mark.parametrize("before", range(260, 305, 11))
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (b"401 No", b'{"error": {"message": "%s"}}'),
        (b"401 No", b"%s"),
        (b"200 OK", b'{"error": {"message": "%s"}}'),
        (b"200 OK", b'{"choices": [], "error": "%s"}'),
    ],
)
def test_no_part_of_the_key_is_told_where_the_message_is_cut(status: bytes, body: bytes, before: int) -> None:
    failure = ask_raw(refusing(status, body % (b"x " * (before // 2) + KEY.encode())), key=KEY)

    assert isinstance(failure, Failure)
    assert KEY[:6] not in failure.message


def test_key_in_the_query_is_not_told_when_the_answer_is_not_http() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"this is no HTTP\r\n\r\n")
        await writer.drain()
        writer.close()

    failure = ask_raw(handler, query=f"?code={KEY}")
    assert isinstance(failure, Failure)
    assert failure.kind == "connection"
    assert KEY not in failure.message


def test_explanation_in_parts_is_read_to_its_end() -> None:
    failure = ask_raw(refusing(b"400 Bad", b'{"error": {"message": "the context of 4096 tokens is too short"}}'))

    assert isinstance(failure, Failure)
    assert failure.message == "HTTP 400: the context of 4096 tokens is too short"


@pytest.mark.parametrize("whole", [True, False])
def test_packed_explanation_is_told(*, whole: bool) -> None:
    packed = gzip.compress(b"the context is too short")
    failure = ask_raw(refusing(b"400 Bad", packed if whole else packed[:-8], b"Content-Encoding: gzip"))

    assert isinstance(failure, Failure)
    assert failure.message == "HTTP 400: the context is too short"


def test_status_of_a_refusal_whose_body_breaks_off_is_kept() -> None:
    failure = ask_raw(refusing(b"400 Bad", b"too long", length=500))

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.status, failure.message) == ("http", 400, "HTTP 400: too long")


def test_packed_answer_of_several_members_is_read_whole() -> None:
    reply = ask_raw(compressed(gzip.compress(GOOD[:30]) + gzip.compress(GOOD[30:]) + bytes(8)))

    assert isinstance(reply, Reply)
    assert reply.answer.text == "4"


def test_page_of_html_as_explanation_is_shortened() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        page = b"<html>\n" + b"<p>bad   gateway</p>\n" * 10_000
        writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))
        await writer.drain()
        writer.close()

    failure = ask_raw(handler)
    assert isinstance(failure, Failure)
    assert failure.message.startswith("HTTP 400: <html> <p>bad gateway</p>")
    assert len(failure.message) == 300


@pytest.mark.parametrize("declared", [True, False])
def test_answer_without_end_is_cut_at_the_cap(*, declared: bool) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        length = b"Content-Length: 99999999" if declared else b"Transfer-Encoding: chunked"
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 1000 if declared else b"3e8\r\n" + b"x" * 1000 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            writer.close()

    failure = ask_raw(handler, max_retries=3, max_answer_bytes=100_000)
    assert isinstance(failure, Failure)
    assert failure.kind == "too_large"
    assert not failure.retryable


def compressed(body: bytes, encoding: bytes = b"gzip") -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        assert b"accept-encoding: identity" in request.lower()
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (encoding, len(body))
        writer.write(head + body)
        await writer.drain()
        writer.close()

    return handler


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_compressed_answer_that_was_not_asked_for_is_read(encoding: bytes, pack: Callable[[bytes], bytes]) -> None:
    reply = ask_raw(compressed(pack(GOOD), encoding))

    assert isinstance(reply, Reply)
    assert reply.answer.text == "4"


def test_answer_that_unpacks_to_very_much_is_given_up() -> None:
    failure = ask_raw(compressed(gzip.compress(bytes(50_000_000))), max_answer_bytes=100_000)

    assert isinstance(failure, Failure)
    assert failure.kind == "too_large"


@pytest.mark.parametrize(
    ("body", "encoding", "message"),
    [
        (b"no gzip", b"gzip", "the body is damaged"),
        (gzip.compress(GOOD)[:-9], b"gzip", "ends before its compressed data do"),
        (GOOD, b"br", "the encoding 'br', which was not asked for"),
    ],
    ids=["damaged", "cut", "unknown"],
)
def test_answer_that_cannot_be_unpacked_is_malformed(body: bytes, encoding: bytes, message: str) -> None:
    failure = ask_raw(compressed(body, encoding))

    assert isinstance(failure, Failure)
    assert failure.kind == "malformed"
    assert message in failure.message


def test_connections_that_end_after_each_answer_lose_nothing() -> None:
    with FakeEndpoint("4", faults=["close"]) as endpoint:
        replies = ask(endpoint.chat_url, times=20, retries=2)

    assert all(isinstance(reply, Reply) for reply in replies)


def test_connection_that_cannot_be_secured_is_refused_at_once() -> None:
    with FakeEndpoint("4") as endpoint:
        failure = failure_of(endpoint.chat_url.replace("http://", "https://"), retries=5)

    assert failure.kind == "tls"
    assert failure.fatal


def test_proxy_variables_do_not_count_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with FakeEndpoint("4") as endpoint:
        reply_of(endpoint.chat_url)


def test_proxy_that_cannot_be_used_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(UsageError, match="only http and https proxies can be used"):
        Client(Endpoint(url="http://model.example/v1", model_type="chat"), parallelism=1, timeout=1, max_retries=0)


def test_proxy_variables_count_for_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        assert request.startswith(b"POST http://model.example/v1/chat/completions ")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD))
        await writer.drain()
        writer.close()

    async def go() -> Reply | Failure:
        async with raw_server(handler) as url:
            monkeypatch.setenv("http_proxy", url.removesuffix("/v1/chat/completions"))
            monkeypatch.delenv("no_proxy", raising=False)
            monkeypatch.delenv("NO_PROXY", raising=False)
            endpoint = Endpoint(url="http://model.example/v1/chat/completions", model_type="chat")
            async with Client(endpoint, parallelism=1, timeout=5, max_retries=0) as client:
                return await _one(client, 0)

    assert isinstance(asyncio.run(go()), Reply)


@pytest.mark.parametrize("status", [200, 503])
def test_failure_that_was_repeated_in_vain_before_is_not_repeated_again(status: int) -> None:
    asked = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await read_request(reader)
        writer.write(b"HTTP/1.1 %d Odd\r\nx-should-retry: false\r\nContent-Length: 4\r\n\r\nodd!" % status)
        writer.close()

    failure = ask_raw(handler, max_retries=3)

    assert isinstance(failure, Failure)
    assert failure.kind == ("malformed" if status == 200 else "http")
    assert asked == 1
