"""What endpoints put on the wire, and what is made of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import weakref

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from tests.adapters.conftest import ServeRaw, reset
from tests.adapters.exchanges import CHAT, EVENTS, JSON, WHOLE, fetch, opened, post, sends, upstream

from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.messages import Request


@pytest.mark.parametrize(
    "answer",
    [
        WHOLE,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + WHOLE,
        JSON + b"Transfer-Encoding: chunked\r\n\r\n3\r\n" + CHAT[:3] + b"\r\n%x\r\n" % (len(CHAT) - 3) + CHAT[3:]
        + b"\r\n0\r\nX-Trailer: t\r\n\r\n",
        JSON + b"Transfer-Encoding: chunked\r\n\r\n%x ;a=b\r\n" % len(CHAT) + CHAT + b"\r\n0\r\n\r\n",
        JSON + b"\r\n" + CHAT,
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE.replace(b"200 OK", b"200"),
        WHOLE.replace(b"\r\n", b"\n"),
        WHOLE.replace(b"Content-Length", b"cONTENT-lENGTH"),
        WHOLE + b"trailing bytes",
        WHOLE.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
    ],
    ids=[
        "length", "interim", "chunks", "chunk extensions", "until close", "1.0", "no reason", "LF", "case", "trailing",
        "upgrade offered",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_an_answer_is_read_alike_in_every_framing_wherever_it_is_cut(
    serve_raw: ServeRaw, answer: bytes, size: int
) -> None:
    def respond(connection: socket.socket, _request: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(answer), size):
            connection.sendall(answer[start : start + size])

    response, body = fetch(upstream(serve_raw(respond)))
    assert (response.status, body) == (200, CHAT)
    assert response.exchange is not None
    assert response.exchange.is_usable
    assert response.exchange.body == CHAT
    assert response.exchange.facts.prompt_tokens == 3
    assert "Transfer-Encoding" not in response.headers
    assert "Upgrade" not in response.headers


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"\x16\x03\x01\x02\x00", "not HTTP"),
        (b"HTTP/1.1 2OO OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer coding"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switched protocols"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, "interim"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", "larger than 65,536 bytes"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 1_000_000, "larger than 65,536 bytes"),
        (JSON + b"Content-Length: 100\r\n\r\n{}", "before its answer was complete"),
        (JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", "before its answer was complete"),
        (EVENTS, "before its answer was complete"),
        (b"", "before it answered"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["close", "reset", "stay"])
def test_what_is_no_answer_is_a_failure_that_says_why(
    serve_raw: ServeRaw, answer: bytes, reason: str, ending: str
) -> None:
    if ending == "stay" and reason.startswith("before"):
        ending = "close"
    done = threading.Event()

    def respond(connection: socket.socket, _request: bytes) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(answer)
        if ending == "reset":
            reset(connection)
        elif ending == "stay":
            assert done.wait(20)

    url = serve_raw(respond)
    try:
        with pytest.raises(UpstreamFailure) as caught:
            fetch(upstream(url))
    finally:
        done.set()
    assert (caught.value.status, caught.value.code) == (502, "connection_failed")
    assert ending == "reset" or reason in str(caught.value)


def test_bytes_that_are_no_utf_8_pass_as_they_are(serve_raw: ServeRaw) -> None:
    text = b'{"choices": [{"text": "\xff\xfe\xc3"}]}'
    url = sends(serve_raw, JSON + b"X-Odd: \xff\xc3\xa9\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
    response, body = fetch(upstream(url))
    assert body == text
    assert response.headers["X-Odd"].encode("latin-1") == b"\xff\xc3\xa9"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body_end_with_their_head(serve_raw: ServeRaw, status: int) -> None:
    url = sends(serve_raw, b"HTTP/1.1 %d X\r\nContent-Type: text/plain\r\n\r\n" % status)
    response, body = fetch(upstream(url))
    assert (response.status, body) == (status, b"")
    assert response.exchange is not None
    assert response.exchange.is_over
    assert response.exchange.failure is None


def test_a_large_request_is_sent_as_the_endpoint_takes_it(serve_raw: ServeRaw) -> None:
    body = bytes(range(256)) * 80_000
    got: list[int] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        got.append(hash(request.partition(b"\r\n\r\n")[2]) == hash(body))
        connection.sendall(WHOLE)

    url = serve_raw(respond)
    fetch(upstream(url), post(url, body))
    assert got == [True]


def test_an_endpoint_that_refuses_a_large_request_unread_is_heard() -> None:
    refusal = b'{"error": {"message": "too large"}}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(refusal) + refusal)
        await writer.drain()
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = "http://{}:{}".format(*server.sockets[0].getsockname())
            async with opened(upstream(url)) as endpoint:
                for _ in range(5):
                    response = await endpoint(post(url, b"x" * 30_000_000))
                    assert response.status == 413
                    assert await response.read() == refusal

    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_endless_answer_of_tiny_chunks_is_cut_at_its_limit(serve_raw: ServeRaw) -> None:
    chunks = b"2\r\nxx\r\n" * 20_000

    def respond(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(JSON + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(chunks)

    with pytest.raises(UpstreamFailure) as caught:
        fetch(upstream(serve_raw(respond), most_bytes=1_000_000))
    assert caught.value.code == "answer_too_large"


def test_an_answer_that_announces_too_much_is_refused_at_once(serve_raw: ServeRaw) -> None:
    url = sends(serve_raw, EVENTS + b"Content-Length: 1000001\r\n\r\n")
    with pytest.raises(UpstreamFailure, match="1,000,000 bytes") as caught:
        fetch(upstream(url, most_bytes=1_000_000))
    assert caught.value.code == "answer_too_large"


@pytest.mark.parametrize("body", [b"", b"a body that must not be there"])
def test_the_answer_to_head_ends_with_its_head(serve_raw: ServeRaw, body: bytes) -> None:
    seen: list[bytes] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        connection.sendall(JSON + b"Content-Length: 1234\r\n\r\n" + body)
        assert connection.recv(65536) == b""

    url = serve_raw(respond)
    for _ in range(2):
        response, got = fetch(upstream(url), Request("HEAD", f"{url}/v1/models", CIMultiDict(), b""))
        assert (response.headers["Content-Length"], got) == ("1234", b"")
    assert len(seen) == 2


async def _answers(pieces: list[bytes]) -> list[str]:
    """What becomes of two requests on a connection that `pieces` come in on, each cut into recvs as they are."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for piece in pieces:
                await reader.readuntil(b"{}")
                writer.write(piece)
                await writer.drain()
        writer.close()

    outcomes = []
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with opened(upstream(url, seconds=0.05, most_bytes=10_000)) as client:
            for _ in range(2):
                try:
                    response = await client(post(url))
                    body = await response.read_raw()
                except UpstreamFailure as failure:
                    outcomes.append(failure.code)
                else:
                    assert len(body) <= 10_000
                    outcomes.append(str(response.status))
    return outcomes


_HEAD_LINES = st.sampled_from(
    [
        b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
        b"Content-Type: text/event-stream\r\n", b"Content-Type: application/json\r\n", b"Keep-Alive: timeout=0\r\n",
        b"Content-Encoding: gzip\r\n", b": \r\n", b"\0: x\r\n", b" folded\r\n", b"Connection: content-type\r\n",
        b"Upgrade: h2c\r\n",
    ]
)  # fmt: skip
_ANSWERS = st.builds(
    lambda line, heads, body: line + b"".join(heads) + b"\r\n" + body,
    st.sampled_from(
        [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200\r\n", b"HTTP/1.1 500 X\r\n", b"HTTP/1.1 100 C\r\n\r\n", b""]
    ),
    st.lists(_HEAD_LINES, max_size=4),
    st.one_of(
        st.binary(max_size=50),
        st.sampled_from(
            [b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"data: [DONE]\n\n", b"FFFFFFFFFFFFFFFFF\r\n", b"x" * 20_000]
        ),
    ),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.generate])
@given(st.lists(st.one_of(_ANSWERS, st.binary(max_size=100)), min_size=1, max_size=2))
def test_whatever_comes_is_an_answer_or_a_failure_with_a_name(pieces: list[bytes]) -> None:
    outcomes = asyncio.run(_answers(pieces))
    assert len(outcomes) == 2
    assert set(outcomes) <= {"200", "500", "connection_failed", "answer_too_large", "unreadable_answer", "timeout"}


@pytest.mark.parametrize("answer", [b"", EVENTS + b"Content-Length: 99\r\n\r\ndata: {}\n\n"], ids=["none", "stream"])
def test_a_broken_exchange_leaves_nothing_behind_for_the_garbage_collector(serve_raw: ServeRaw, answer: bytes) -> None:
    async def ask(origin: str) -> weakref.ref[CIMultiDict[str]]:
        async with opened(upstream(origin)) as client:
            request = post(origin)
            with contextlib.suppress(UpstreamFailure):
                await (await client(request)).read_raw()
            await request.close_streams()
            return weakref.ref(request.headers)

    gc.disable()
    try:
        assert asyncio.run(ask(sends(serve_raw, answer)))() is None
    finally:
        gc.enable()
