"""The proxy's HTTP/1.1 towards the harness, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest
from tests.adapters.served import (
    CLOSE,
    PATH,
    Stream,
    answer,
    body_of,
    ends_with_reset,
    head_of,
    post,
    read_all,
    read_until,
    serving,
)

from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.messages import Request, Response


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def test_a_whole_answer_has_its_length_reason_and_end_to_end_headers() -> None:
    async def chain(_request: Request) -> Response:
        headers = [("X-Request-Id", "r1"), ("Connection", "x"), ("Keep-Alive", "timeout=1"), ("Content-Length", "99")]
        return answer(b"hello", *headers, ("Set-Cookie", "a"), ("Set-Cookie", "b"), status=418, reason="I'm a teapot")

    with serving(chain) as served:
        received = served.say(post(b"{}", CLOSE))
    assert received == (
        b"HTTP/1.1 418 I'm a teapot\r\nX-Request-Id: r1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Content-Length: 5\r\nConnection: close\r\n\r\nhello"
    )


def test_requests_sent_ahead_are_answered_in_order() -> None:
    async def chain(request: Request) -> Response:
        await asyncio.sleep(0.05 if request.body == b"0" else 0)
        return answer(request.body)

    with serving(chain) as served:
        ahead = b"".join(post(str(number).encode()) for number in range(300))
        received = served.say(ahead + post(b"end", CLOSE))
        stats = served.stats.snapshot()
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [str(number).encode() for number in range(300)] + [b"end"]
    assert (stats.requests, stats.answered) == (301, 301)


def test_a_client_that_sends_ahead_without_end_is_not_read_without_end() -> None:
    hold = threading.Event()

    async def chain(request: Request) -> Response:
        await asyncio.to_thread(hold.wait, 20)
        return answer(request.body)

    with serving(chain) as served, served.connect() as connection:
        connection.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += connection.send(post(b"x" * 100_000))
        assert sent < 100_000_000
        assert len(served.requests) == 1
        hold.set()


def test_bytes_arriving_one_by_one_make_the_same_request() -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: proxy\r\nX-Empty:\r\nX-Padded:  a b \t\r\nConnection: close\r\n"
    request = (
        head.encode() + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-Trailer: t\r\n\r\n"
    )
    with serving() as served:
        received = served.say(*(request[index : index + 1] for index in range(len(request))))
        (seen,) = served.requests
    assert body_of(received) == b"abcdefg"
    assert dict(seen.headers) == {"Host": "proxy", "X-Empty": "", "X-Padded": "a b"}


def test_a_request_knows_its_sample_its_plan_and_an_id_of_its_own() -> None:
    with serving() as served:
        served.say(
            post(b"{}", "X-Sample-Id: gpqa-17", "x-samples-planned: 198", "Connection: X-Secret", "X-Secret: 1")
            + post(b"{}", "X-Samples-Planned: many", "X-Latin: caf\xe9", CLOSE)
        )
        first, second = served.requests
    assert (first.sample, first.planned) == ("gpqa-17", 198)
    assert (second.sample, second.planned) == (None, None)
    assert first.id != second.id
    assert first.upstream == "model"
    assert set(first.headers) == {"Host", "Content-Length"}
    assert first.received_headers == {"host": "proxy", "content-length": "2"}
    assert second.headers["X-Latin"] == "caf\u00c3\u00a9"


def test_the_headers_as_received_stay_when_an_interceptor_changes_them() -> None:
    with serving() as served:
        served.say(post(b"{}", "X-A: 1", CLOSE))
        (request,) = served.requests
    request.headers["X-A"] = "2"
    assert request.received_headers["x-a"] == "1"


def test_the_absolute_form_of_a_target_is_understood() -> None:
    with serving() as served:
        received = served.say(post(b"{}", CLOSE, path=f"http://proxy:1{PATH}?a=b"))
        (request,) = served.requests
    assert head_of(received)[0] == "HTTP/1.1 200 OK"
    assert request.url == "http://127.0.0.1:9/v1/chat/completions?a=b"


@pytest.mark.parametrize("body", [b'{"a": 1}', b""])
def test_the_wish_for_another_protocol_is_passed_over(body: bytes) -> None:
    wish = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    with serving() as served:
        received = served.say(post(body, *wish) + post(b"2", *wish) + post(b"3", CLOSE))
        first = served.requests[0]
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in received.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [body, b"2", b"3"]
    assert set(first.headers) == {"Host", "Content-Length"}


@pytest.mark.parametrize(
    ("kept", "connection"), [("Connection: keep-alive", "Connection: keep-alive"), ("X: y", "Connection: close")]
)
def test_http_1_0_keeps_its_connection_when_it_asks_for_that(kept: str, connection: str) -> None:
    with serving() as served, served.connect() as client:
        client.sendall(post(b"1", kept, version="1.0"))
        received = read_until(client, b"\r\n\r\n1")
        assert connection in head_of(received)
        if "keep-alive" in kept:
            client.sendall(post(b"2", version="1.0"))
            assert body_of(read_all(client)) == b"2"
        else:
            assert read_all(client) == b""


def test_head_has_the_length_and_no_body() -> None:
    async def chain(_request: Request) -> Response:
        return answer(b"12345")

    with serving(chain) as served:
        received = served.say(f"HEAD {PATH} HTTP/1.1\r\nHost: proxy\r\n{CLOSE}\r\n\r\n".encode())
    assert "Content-Length: 5" in head_of(received)
    assert body_of(received) == b""


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("is_stream", [False, True])
def test_answers_without_a_body_have_no_framing_of_one(status: int, *, is_stream: bool) -> None:
    async def chain(request: Request) -> Response:
        if request.body == b"last":
            return answer(b"last")
        return answer(Stream(_chunks(b"")) if is_stream else b"", status=status, reason="")

    with serving(chain) as served:
        received = served.say(post(b"{}") + post(b"last", CLOSE))
    first, _, rest = received.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %d \r\n" % status) or first == b"HTTP/1.1 %d " % status
    assert b"chunked" not in first
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_stream_is_chunked_for_http_1_1_and_ends_with_the_connection_for_http_1_0() -> None:
    async def chain(_request: Request) -> Response:
        return answer(Stream(_chunks(b"one ", b"", b"two")), ("Content-Type", "text/plain"))

    with serving(chain) as served:
        modern = served.say(post(b"{}", CLOSE))
        old = served.say(post(b"{}", "Connection: keep-alive", version="1.0"))
        stats = served.stats.snapshot()
    assert "Transfer-Encoding: chunked" in head_of(modern)
    assert body_of(modern) == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
    assert head_of(old)[1:] == ["Content-Type: text/plain", "Connection: close"]
    assert body_of(old) == b"one two"
    assert stats.answered == 2


def test_a_stream_whose_length_is_known_passes_with_it() -> None:
    async def chain(_request: Request) -> Response:
        return answer(Stream(_chunks(b"one ", b"two")), ("Content-Length", "7"))

    with serving(chain) as served:
        received = served.say(post(b"{}", CLOSE))
    assert "Content-Length: 7" in head_of(received)
    assert body_of(received) == b"one two"


@pytest.mark.parametrize(("length", "seen"), [("3", b"one"), ("9", b"one two")])
def test_a_stream_of_another_length_than_announced_is_cut_and_counted(
    length: str, seen: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def chain(_request: Request) -> Response:
        return answer(Stream(_chunks(b"one", b" two")), ("Content-Length", length))

    with serving(chain) as served:
        received = served.say(post(b"{}") + post(b"{}"))
        stats = served.stats.snapshot()
    assert body_of(received) == seen
    assert (stats.answered, stats.interceptor_failures) == (0, 1)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("failure", [UpstreamFailure("gone", code="connection_failed"), ValueError("broken")])
def test_a_stream_that_fails_ends_without_its_framing(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> AsyncIterator[bytes]:
        yield b"some"
        raise failure

    streams = []

    async def chain(_request: Request) -> Response:
        streams.append(Stream(fail()))
        return answer(streams[-1])

    with serving(chain) as served:
        modern = served.say(post())
        with served.connect() as connection:
            connection.sendall(post(version="1.0"))
            assert ends_with_reset(connection)
        stats = served.stats.snapshot()
    assert body_of(modern) == b"4\r\nsome\r\n"
    assert (stats.requests, stats.answered, stats.in_flight, stats.by_status) == (2, 0, 0, {})
    assert all(stream.is_closed for stream in streams)
    is_ours = isinstance(failure, ValueError)
    assert (stats.interceptor_failures, len(caplog.records)) == ((2, 2) if is_ours else (0, 0))


@pytest.mark.parametrize(
    "broken",
    [
        answer(b"{}", ("X-A", "1\r\nX-B: 2")),
        answer(b"{}", ("X-A", "1\nX-B: 2")),
        answer(b"{}", ("X-A: 1\r\nX-B", "2")),
        answer(b"{}", ("X A", "2")),
        answer(b"{}", ("", "2")),
        answer(b"{}", ("X-A", "\0")),
        answer(b"{}", ("X-A", "\u20ac")),
        answer(b"{}", reason="OK\r\nX-B: 2"),
        answer(b"{}", status=101),
        answer(b"{}", status=1000),
        answer(Stream(_chunks(b"x")), ("X-A", "1\r\nX-B: 2")),
    ],
    ids=lambda response: repr((response.status, response.reason, dict(response.headers))),
)
def test_nothing_gets_into_the_head_that_is_not_a_header(broken: Response, caplog: pytest.LogCaptureFixture) -> None:
    async def chain(_request: Request) -> Response:
        return broken

    with serving(chain) as served:
        received = served.say(post(b"{}", CLOSE))
        stats = served.stats.snapshot()
    assert head_of(received)[0] == "HTTP/1.1 500 Internal Server Error"
    assert b"X-B: 2" not in received.partition(b"\r\n\r\n")[0]
    assert b'"proxy_error"' in received
    assert (stats.by_status, stats.interceptor_failures) == ({500: 1}, 1)
    assert len(caplog.records) == 1


def test_a_hundred_megabytes_pass_both_ways() -> None:
    body = b"0123456789abcdef" * (100_000_000 // 16)
    received = bytearray()
    with serving() as served, served.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(post(body, CLOSE),))
        sender.start()
        while chunk := connection.recv(1024 * 1024):
            received += chunk
        sender.join(20)
    head, _, rest = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest == body


def test_a_large_body_in_tiny_chunks_arrives_whole() -> None:
    size = 200_000
    with serving() as served:
        chunked = post(b"", "Transfer-Encoding: chunked", CLOSE).replace(b"Content-Length: 0\r\n", b"")
        served.say(chunked + b"1\r\nx\r\n" * size + b"0\r\n\r\n")
        (request,) = served.requests
    assert request.body == b"x" * size
