"""What the endpoint gets."""

from __future__ import annotations

import socket

import pytest
from multidict import CIMultiDict
from tests.adapters.conftest import ServeRaw
from tests.adapters.exchanges import WHOLE, fetch, sends, upstream

from nemo_evaluator.adapters.messages import Request


def test_a_request_has_what_it_needs_and_nothing_of_the_connection(serve_raw: ServeRaw) -> None:
    seen: list[bytes] = []

    def respond(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        connection.sendall(WHOLE)

    url = serve_raw(respond)
    headers = {
        "Host": "proxy.example",
        "content-length": "99",
        "Connection": "close",
        "Transfer-Encoding": "chunked",
        "Expect": "100-continue",
        "X-Sample-Id": "s1",
        "X-Samples-Planned": "100",
        "Proxy-Authorization": "Basic x",
        "TE": "trailers",
        "X-Kept": "\u00e9",
        "Accept-Encoding": "br;q=1.0, gzip;q=0.8, *;q=0.1",
    }
    fetch(upstream(url), Request("POST", f"{url}/v1/chat/completions?a=b%20c", CIMultiDict(headers), b'{"a": 1}'))
    host = url.removeprefix("http://").encode()
    assert seen == [
        b"POST /v1/chat/completions?a=b%20c HTTP/1.1\r\nHost: " + host + b"\r\nX-Kept: \xe9\r\n"
        b"Accept-Encoding: gzip;q=0.8\r\nContent-Length: 8\r\n\r\n" + b'{"a": 1}'
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "b\r\nX-Evil: 1"),
        ("X-A", "b\nc"),
        ("X-A", "b\0"),
        ("X A", "b"),
        ("X-A:", "b"),
        ("X-A", "\u20ac"),
        ("", "b"),
    ],
)
def test_a_header_that_would_say_something_else_on_the_wire_is_not_sent(
    serve_raw: ServeRaw, name: str, value: str
) -> None:
    url = sends(serve_raw, WHOLE)
    with pytest.raises(ValueError, match="header"):
        fetch(upstream(url), Request("POST", f"{url}/v1/chat/completions", CIMultiDict({name: value}), b""))


@pytest.mark.parametrize("elsewhere", ["http://elsewhere.example/v1", "{url}.example/v1", "{url}1/v1", "/v1"])
def test_a_request_for_another_origin_is_not_sent(serve_raw: ServeRaw, elsewhere: str) -> None:
    """Else the key would go where an interceptor, or a mistake in one, says."""
    url = sends(serve_raw, WHOLE)
    with pytest.raises(ValueError, match="does not go to"):
        fetch(upstream(url), Request("POST", elsewhere.format(url=url), CIMultiDict(), b""))
