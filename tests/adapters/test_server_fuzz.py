"""What anybody may send to the proxy's port: it answers properly or hangs up, and serves the next one as before."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
from collections.abc import Iterator, Sequence

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.adapters.served import PATH, Served, post, read_all, serving

from nemo_evaluator.adapters import server
from nemo_evaluator.adapters.server_head import Incoming
from nemo_evaluator.adapters.server_protocol import Connection
from nemo_evaluator.adapters.server_reader import Limits, RequestReader

LIMITS = Limits(
    head_bytes=65536, request_bytes=100_000, request_seconds=9, idle_seconds=9, stalled_seconds=9, linger_seconds=9
)
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: proxy\r\n".encode()
SMUGGLED = f"GET {PATH} HTTP/1.1\r\nHost: smuggled\r\n\r\n".encode()


class _Visit:
    keeps_body = True

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming

    async def answer(self, connection: Connection, /) -> None:
        raise NotImplementedError

    def left(self) -> None:
        pass


Seen = tuple[str, bytes, list[tuple[str, str]], bytes, int | None]


def _read(pieces: Sequence[bytes]) -> list[Seen]:
    """The requests that a reader makes of some pieces; the last one may be refused."""
    seen: list[Seen] = []

    def ready(visit: _Visit) -> None:
        found, refusal = visit.incoming, visit.incoming.refusal
        if refusal is None:
            seen.append((found.method, found.target, found.headers, found.body, None))
        else:
            # How much of a refused request was understood is of no importance.
            seen.append(("", b"", [], b"", refusal[0]))

    reader = RequestReader(_Visit, LIMITS, ready=ready, go_on=lambda: None)  # type: ignore[arg-type]  # it gets what _Visit made
    for piece in pieces:
        reader.feed(memoryview(piece))
    reader.close()
    return seen


def _split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in itertools.pairwise([0, *places, len(data)])]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)
FRAGMENTS = st.sampled_from([
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"\xff\xfe", b"\x16\x03\x01",
    b"GET", b"POST", b"HEAD", b"CONNECT", b"BREW", b" / ", b" * ", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PATH.encode(), b"/secret", b"http://a/b", b"%2e%2e/", b"..",
    b"Host: a", b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: -1", b"Content-Length: 99999999999999",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding : chunked",
    b"Connection: close", b"Connection: keep-alive, X", b"Connection: upgrade", b"Upgrade: h2c",
    b"Expect: 100-continue", b"X-Sample-Id: ", b"X-Samples-Planned: 9" * 3, b"0\r\n\r\n", b"3\r\nabc\r\n", b"g\r\n",
    b"ffffffffffffffff\r\n", b"3;a=b\r\nabc\r\n", b"abc", b"{}", HEAD, HEAD + b"\r\n", post(), post(b"abc"), SMUGGLED,
])  # fmt: skip
SOUPS = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=8)), max_size=14).map(b"".join)
"""Bytes that look a little like HTTP."""

TOKENS = st.from_regex(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,12}", fullmatch=True).filter(
    lambda name: name.lower() not in {"te", "trailer", "upgrade", "connection", "expect", "host", "trailers"}
)
VALUES = st.from_regex(r"([!-~\x80-\xff]([ \t!-~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)


@st.composite
def _requests(draw: st.DrawFn) -> tuple[bytes, list[Seen]]:
    """Some requests in one piece, and what is to be seen of them."""
    wire, seen = b"", []
    for _ in range(draw(st.integers(1, 4))):
        headers = draw(st.lists(st.tuples(TOKENS.map("X-".__add__), VALUES), max_size=5))
        headers = [(name, value) for name, value in headers if not name.lower().startswith("x-sample")]
        body = draw(st.binary(max_size=200))
        lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
        if draw(st.booleans()):
            framing, sent, told = f"Content-Length: {len(body)}", body, [("Content-Length", str(len(body)))]
        else:
            chunks = [chunk for chunk in _split(body, draw(CUTS)) if chunk]
            framing, told = "Transfer-Encoding: chunked", []
            sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX-Late: 1\r\n\r\n"
        wire += HEAD + lines + framing.encode() + b"\r\n\r\n" + sent
        seen.append(("POST", PATH.encode(), headers, [("Host", "proxy"), *told], body))
    return wire, [
        (method, target, [*headers, *own], body, None) for method, target, headers, own, body in seen
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(_requests(), CUTS)
def test_requests_are_the_same_wherever_they_are_split(made: tuple[bytes, list[Seen]], cuts: list[int]) -> None:
    wire, expected = made

    def sorted_headers(requests: list[Seen]) -> list[object]:
        return [(method, target, sorted(headers), body, no) for method, target, headers, body, no in requests]

    assert sorted_headers(_read(_split(wire, cuts))) == sorted_headers(expected)


@settings(max_examples=2000, deadline=None)
@given(SOUPS, CUTS)
def test_what_a_soup_means_does_not_depend_on_where_it_is_split(soup: bytes, cuts: list[int]) -> None:
    whole, split = _read([soup]), _read(_split(soup, cuts))
    assert split == whole
    assert all(refusal is None for *_, refusal in whole[:-1]), "after a refusal nothing more is read"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


def _exchange(served: Served, *parts: bytes) -> bytes:
    """What comes back when all is sent, and then the end of it."""
    with served.connect() as connection:
        # The server may have hung up before all was sent.
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def _statuses(received: bytes) -> list[int]:
    """The statuses of all that came; fails when something else came than whole answers."""

    class Answers:
        def __init__(self) -> None:
            self.statuses: list[int] = []
            self.ended = 0

        def on_headers_complete(self) -> None:
            self.statuses.append(parser.get_status_code())

        def on_message_complete(self) -> None:
            self.ended += 1

    answers = Answers()
    parser = httptools.HttpResponseParser(answers)
    parser.feed_data(received)
    assert answers.ended == len(answers.statuses)
    return answers.statuses


def _serves_as_before(served: Served) -> None:
    assert _statuses(served.say(post(b"well", "Connection: close"))) == [200]


@settings(max_examples=500, deadline=None)
@given(soup=SOUPS, cuts=CUTS)
def test_a_soup_gets_answers_or_an_end(served: Served, soup: bytes, cuts: list[int]) -> None:
    # HEAD has answers without bodies, which a parser of answers alone cannot know.
    received = _exchange(served, *_split(soup.replace(b"HEAD", b"GET"), cuts))
    assert all(status in {100, 200, 400, 401, 404, 405, 413, 431, 505} for status in _statuses(received))


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"Content-Length: 0, 0\r\n\r\n",
        b"Content-Length: +0\r\n\r\n",
        b"Content-Length: 0x0\r\n\r\n",
        b"Content-Length:\r\n\r\n",
        b"Content-Length : 0\r\n\r\n",
        b"Content-Length: 0\n\r\n",
        b"Content-Length: 0\r\n\n",
        b"Content-Length: 0\r\n X: folded\r\n\r\n",
        b"Content-Length: 0\rX: y\r\n\r\n",
        b"Content-Length: 0\0\r\n\r\n",
        b"Content-Length: 18446744073709551616\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding\r\n : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\n\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"Host: other\r\n\r\n",
    ],
    ids=repr,
)
def test_a_request_with_two_meanings_is_refused_and_nothing_behind_it_is_read(rest: bytes) -> None:
    with serving() as served:
        received = served.say(HEAD + rest + SMUGGLED)
        assert _statuses(received) == [400]
        assert b"Connection: close" in received
        assert served.requests == []
        assert served.stats.snapshot().in_flight == 0


@pytest.mark.parametrize(
    ("soup", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\r\n" * 10 + b"\0\0\0", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET " + PATH.encode() + b"\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"".join(b"X-%d: y\r\n" % number for number in range(20_000)) + b"\r\n", 431),
        (HEAD + b"X: " + b"y" * 66_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 66_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (HEAD + b"X: " + b"y" * 60_000 + b"\r\nConnection: close\r\n\r\n", 200),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else str(value),
)
def test_what_cannot_be_served_is_told_so(served: Served, soup: bytes, status: int) -> None:
    assert _statuses(served.say(soup)) == [status]
    _serves_as_before(served)


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b"\r\n" * 1000),
        (b"GET /", b"a" * 10_000),
        (HEAD, b"X: " + b"y" * 5000 + b"\r\n"),
        (HEAD + b"X-", b"y" * 10_000),
        (HEAD + b"X: ", b"y" * 10_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;", b"x" * 10_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;", b"x=y;" * 2500),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 10_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"y" * 5000 + b"\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y" * 10_000),
    ],
    ids=[
        "empty lines", "target", "headers", "name", "value", "extension", "extensions", "chunk size", "trailers",
        "trailer",
    ],
)  # fmt: skip
def test_framing_without_end_is_refused_soon(served: Served, begin: bytes, again: bytes) -> None:
    with served.connect() as connection:
        connection.sendall(begin)
        sent = 0
        while not select.select([connection], [], [], 0)[0]:
            connection.sendall(again)
            sent += len(again)
            assert sent < 20_000_000
        received = connection.recv(65536)
    assert received.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    _serves_as_before(served)


def test_of_a_stranger_no_body_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_REQUEST_BYTES", 1000)
    head = HEAD.replace(b"secret", b"guess") + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with serving() as served:
        assert _statuses(served.say(head + b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n")) == [401]


def test_strangers_leave_no_line_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    for soup in (b"\x16\x03\x01\x02\0", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", HEAD, post()[:-1], b"\0" * 70_000):
        _exchange(served, soup)
    for _ in range(50):
        served.connect().close()
    _serves_as_before(served)
    assert caplog.records == []
