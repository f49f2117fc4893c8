"""Real servers and a plain client for the tests of the proxy."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from nemo_evaluator.testing.threaded_server import ThreadedServer

AppHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[AppHandler], str]
ServeRaw = Callable[[Callable[[socket.socket, bytes], None]], str]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks over connections of its own, like a harness without keep-alive."""

    def ask(
        self,
        method: str,
        url: str,
        body: bytes | dict[str, Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        with contextlib.closing(connection):
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, body=data, headers=headers or {})
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())

    def post(self, url: str, body: bytes | dict[str, Any] = b"{}", *, headers: dict[str, str] | None = None) -> Reply:
        return self.ask("POST", url, body, headers={"Content-Type": "application/json", **(headers or {})})


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start an HTTP server whose every request goes to one function; gives its origin."""
    with ExitStack() as stack:

        def start(handler: AppHandler) -> str:
            def application() -> web.Application:
                app = web.Application(client_max_size=2**30)
                app.router.add_route("*", "/{path:.*}", handler)
                return app

            server = ThreadedServer(application, host="127.0.0.1", port=0)
            server.start()
            stack.callback(server.stop)
            return f"http://127.0.0.1:{server.port}"

        yield start


@pytest.fixture
def serve_raw() -> Iterator[ServeRaw]:
    """Start a server that reads one request's head and body and then does what a function does with the socket."""
    with ExitStack() as stack:

        def start(answer: Callable[[socket.socket, bytes], None]) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=_accept, args=(listener, answer), daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            # Closing alone does not wake a thread in `accept`.
            stack.callback(_shut, listener)
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield start


def reset(connection: socket.socket) -> None:
    """Close with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _shut(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, answer: Callable[[socket.socket, bytes], None]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(10)
            # The other side may be gone already: that is part of several tests.
            with contextlib.suppress(OSError):
                answer(connection, _read_request(connection))


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return data
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        chunk = connection.recv(65536)
        if not chunk:
            break
        body += chunk
    return head + b"\r\n\r\n" + body
