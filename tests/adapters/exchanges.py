"""One exchange of the proxy with an endpoint, without a harness."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from multidict import CIMultiDict
from tests.adapters.conftest import ServeRaw

from nemo_evaluator.adapters.endpoint import Endpoint
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.adapters.upstream import Upstream

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHAT = b'{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}'
WHOLE = JSON + b"Content-Length: %d\r\n\r\n" % len(CHAT) + CHAT


def upstream(origin: str, *, seconds: float = 20.0, total: float = 20.0, most_bytes: int = 64 * 2**20) -> Upstream:
    """The endpoint at `origin`: how long it may be silent, how long answers may take and how large they may be."""
    url = f"{origin}/v1/chat/completions"
    return Upstream(url, request_timeout=seconds, total_timeout=total, max_response_bytes=most_bytes)


def post(origin: str, body: bytes = b"{}") -> Request:
    return Request("POST", f"{origin}/v1/chat/completions", CIMultiDict(), body)


@contextlib.asynccontextmanager
async def opened(endpoint: Upstream) -> AsyncIterator[Endpoint]:
    """The client for the endpoint, for less than half a minute."""
    async with asyncio.timeout(30), Endpoint(endpoint, StatsRecorder()) as client:
        yield client


def fetch(endpoint: Upstream, request: Request | None = None) -> tuple[Response, bytes]:
    """One exchange, read to its end."""

    async def ask() -> tuple[Response, bytes]:
        async with opened(endpoint) as client:
            response = await client(request or post(endpoint.origin))
            return response, await response.read_raw()

    return asyncio.run(ask())


def sends(serve_raw: ServeRaw, *pieces: bytes) -> str:
    """An endpoint that answers each connection's first request with `pieces`, and then closes it."""

    def respond(connection: socket.socket, _request: bytes) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return serve_raw(respond)
