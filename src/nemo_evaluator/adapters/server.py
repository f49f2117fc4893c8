"""The proxy's face towards the harness: one listener, a secret path, requests in and responses out."""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_evaluator.adapters.context import Ends
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext, InterceptorFailure
from nemo_evaluator.adapters.messages import Request, Response, TooLargeError, end_to_end, error_response
from nemo_evaluator.adapters.redaction import redact_text, secrets_of
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.adapters.upstream import Upstream

if TYPE_CHECKING:
    from aiohttp import web

MAX_REQUEST_BYTES = 256 * 1024 * 1024
MAX_REQUEST_SECONDS = 120.0
_FIRST_WITH_CHUNKS = (1, 1)
_LARGEST_HEADER = 64 * 1024
_IDLE_SECONDS = 3630.0
_WITHOUT_LENGTH = frozenset({"content-length"})

Over = Callable[[int | None, str | None], None]
"""Told the status that the harness gets, or None when it gets no complete answer, and why the answer is unusable."""

_log = logging.getLogger(__name__)
# What strangers send to the port is answered with 400; it is no event of the run.
_http_log = logging.getLogger(f"{__name__}.http")
_http_log.setLevel(logging.CRITICAL + 1)


def _ignore(_status: int | None, _flaw: str | None) -> None:
    """For requests that are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRoute:
    """What requests under one secret path get."""

    token: str
    name: str
    upstream: Upstream
    chain: CallNext
    stats: StatsRecorder


class HarnessServer:
    """Answers the harness's requests by means of the chains."""

    def __init__(self, routes: Sequence[ServedRoute], *, ends: Ends) -> None:
        self._routes = routes
        self._ends = ends

    def protocol_factory(self) -> web.Server:
        """The protocol factory for a listener in the running event loop."""
        from aiohttp import web  # noqa: PLC0415  only a run pays for it

        return web.Server(
            self.handle,
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            logger=_http_log,
            keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_LARGEST_HEADER,
            max_field_size=_LARGEST_HEADER,
        )

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        path, _, query = http.raw_path.partition("?")
        token, _, rest = path.removeprefix("/").partition("/")
        route = self._route(token)
        if route is None:
            self._routes[0].stats.other()
            return await _reply(http, _refusal(401, "the path does not begin with this run's token"))
        url = route.upstream.target(f"/{rest}" if rest else "", query)
        if url is None:
            route.stats.other()
            message = f"the path is not below the endpoint's base {route.upstream.base_path or '/'}"
            return await _reply(http, _refusal(404, message))
        if http.method == "POST":
            return await self._counted(http, url, route)
        route.stats.other()
        return await self._exchange(http, url, route, _ignore)

    def _route(self, token: str) -> ServedRoute | None:
        given = token.encode(errors="replace")
        # All are compared, so that the time taken says nothing.
        found = [route for route in self._routes if hmac.compare_digest(given, route.token.encode())]
        return found[0] if found else None

    async def _counted(self, http: web.BaseRequest, url: str, route: ServedRoute) -> web.StreamResponse:
        is_over = False
        stats = route.stats

        def over(status: int | None, flaw: str | None) -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                stats.ended(status, flaw=flaw)

        stats.started()
        try:
            return await self._exchange(http, url, route, over)
        except (asyncio.CancelledError, ConnectionError):
            if not is_over:
                stats.abandoned()
            raise
        finally:
            over(None, None)

    async def _exchange(self, http: web.BaseRequest, url: str, route: ServedRoute, over: Over) -> web.StreamResponse:
        """Answer; `over` is called just before the harness has all of the answer."""
        request = Request(http.method, url, end_to_end(http.headers.items()), b"", upstream=route.name)
        try:
            request.body = await _read(http)
        except TooLargeError as error:
            response = _refusal(413, str(error))
        except TimeoutError:
            response = _refusal(408, f"the request did not end within {MAX_REQUEST_SECONDS:g} s")
        except ValueError as error:
            response = _refusal(400, str(error))
        else:
            response = await self._respond(request, route)
        try:
            return await _reply(http, response, lambda status: over(status, response.flaw))
        finally:
            await response.aclose()

    async def _respond(self, request: Request, route: ServedRoute) -> Response:
        """The chain's response; its failures become errors that say whose they are."""
        if self._ends.reason is not None and request.is_counted:
            return error_response(self._ends.status, self._ends.reason, kind="run_ended", code=self._ends.kind)
        try:
            return await route.chain(request)
        except UpstreamFailure as failure:
            if request.is_counted and not failure.is_counted:
                route.stats.exchange_failed(failure.status, str(failure))
            return error_response(failure.status, str(failure), kind="upstream_error", code=failure.code)
        except InterceptorFailure as failure:
            return self._fault(request, route, str(failure), kind="interceptor_error", code=failure.name)
        except Exception as error:  # noqa: BLE001  a fault of ours must reach the harness as an answer, not as a hang
            # Those of the interceptors are caught above: what is left is the innermost stage.
            text = f"the proxy failed at the stage 'endpoint': {type(error).__name__}: {error}"
            return self._fault(request, route, text, kind="proxy_error", code="endpoint")

    def _fault(self, request: Request, route: ServedRoute, text: str, *, kind: str, code: str) -> Response:
        """The answer to a request that failed on this side: it is logged in one line, and counted."""
        text = redact_text(text, secrets_of(request.headers.items(), request.url))
        _log.error("%s", text)
        route.stats.interceptor_failed(text)
        return error_response(500, text, kind=kind, code=code)


async def _reply(
    http: web.BaseRequest, response: Response, tell: Callable[[int], None] = lambda _status: None
) -> web.StreamResponse:
    """Send `response`: at once when it is whole, else chunk by chunk; `tell` gets the status just before its end."""
    from aiohttp import web  # noqa: PLC0415  loaded already

    headers: Any = response.headers
    if isinstance(response.body, bytes):
        if http.method != "HEAD":
            headers = end_to_end(headers.items(), drop=_WITHOUT_LENGTH)
        tell(response.status)
        return web.Response(status=response.status, reason=response.reason or None, headers=headers, body=response.body)
    reply = web.StreamResponse(status=response.status, reason=response.reason or None, headers=headers)
    await reply.prepare(http)
    try:
        async for chunk in response.body:
            if response.body.is_complete:
                tell(response.status)
            await reply.write(chunk)
    except UpstreamFailure:
        # Without the end of its framing the harness sees that the answer is not whole. Where the end of the
        # connection is all the framing there is (HTTP/1.0), only a reset says so.
        if http.version < _FIRST_WITH_CHUNKS and reply.content_length is None:
            _reset(http)
        raise
    tell(response.status)
    await reply.write_eof()
    return reply


def _refusal(status: int, message: str) -> Response:
    return error_response(status, message, kind="proxy_error", code="refused")


def _reset(http: web.BaseRequest) -> None:
    """End the connection with a reset, as `close` with a linger time of 0 does (POSIX 2.10.16, SO_LINGER)."""
    if http.transport is not None:
        connection = http.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        http.transport.abort()


async def _read(http: web.BaseRequest) -> bytes:
    """The request's body.

    Raises:
        TooLargeError: it is larger than `MAX_REQUEST_BYTES`.
        TimeoutError: it did not come to an end in time.
        ValueError: its framing is broken.
    """
    from aiohttp import web  # noqa: PLC0415  loaded already

    if not http.can_read_body:
        return b""
    if http.headers.get("Expect", "").lower() == "100-continue":
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        http.writer.output_size = 0
    chunks, size = [], 0
    try:
        async with asyncio.timeout(MAX_REQUEST_SECONDS):
            while chunk := await http.content.readany():
                size += len(chunk)
                if size > MAX_REQUEST_BYTES:
                    raise TooLargeError(f"the request is larger than {MAX_REQUEST_BYTES:,} bytes")
                chunks.append(chunk)
    except web.RequestPayloadError as error:
        raise ValueError(f"the request's body cannot be read: {error}") from error
    return b"".join(chunks)
