"""The innermost link of the chain: the exchange with the endpoint."""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING, Self

from nemo_evaluator.adapters.answers import AnswerObserver
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.messages import DECODABLE, Request, Response, end_to_end
from nemo_evaluator.adapters.redaction import redact_text, secrets_of
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.adapters.tls import environment_proxy, tls_context
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.adapters.usable import expected_of

if TYPE_CHECKING:
    import aiohttp

    from nemo_evaluator.adapters.connections import Connections

_DROPPED = frozenset({"host", "content-length", "expect", "x-sample-id"})
"""Headers of requests that end here; `X-Sample-Id` tells the proxy which sample a request is about."""

_FIRST_ERROR = 400
_LARGE_BODY = 256 * 1024
_LARGEST_HEADER = 64 * 1024


class Endpoint:
    """Sends requests to one upstream over kept-alive connections, and counts what comes back.

    Each request is sent once: repeating is the harness's business, which knows what may be repeated and counts it. Any
    answer of the endpoint, errors and redirects too, is returned as it is. JSON answers are read whole before they
    are returned, so that one that breaks off is a failure and never half an answer; everything else is passed on chunk
    by chunk.
    """

    def __init__(self, upstream: Upstream, stats: StatsRecorder, *, authorization: str | None = None) -> None:
        self.upstream = upstream
        self.authorization = authorization or upstream.basic_authorization
        self.stats = stats
        self._session: aiohttp.ClientSession | None = None
        self._connections: Connections | None = None
        self._proxy = environment_proxy(upstream)
        self._tls = tls_context() if upstream.is_tls else True

    async def __aenter__(self) -> Self:
        """Open the connection pool in the running event loop."""
        import aiohttp  # noqa: PLC0415  170 ms that only a run pays

        from nemo_evaluator.adapters.connections import Connections  # noqa: PLC0415  loads aiohttp

        self._connections = Connections(tls=self._tls)
        self._session = aiohttp.ClientSession(
            connector=self._connections,
            timeout=aiohttp.ClientTimeout(
                total=self.upstream.total_timeout,
                connect=self.upstream.connect_timeout,
                sock_read=self.upstream.request_timeout,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_LARGEST_HEADER,
            max_field_size=_LARGEST_HEADER,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # aiohttp sends GET, PUT and DELETE a second time when a kept connection breaks, and offers no public switch.
        self._session._retry_connection = False  # noqa: SLF001  see above; aiohttp's own test client sets it too
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, request: Request) -> Response:
        """Exchange one request.

        Raises:
            UpstreamFailure: no connection, no complete answer, or no answer in time.
        """
        started = time.monotonic()
        if request.is_counted:
            self.stats.sent()
            if request.attempt > 1:
                self.stats.retried()
        try:
            answer = await self._send(request)
        except _failures() as error:
            raise self.failure(request, error) from error
        headers = end_to_end(answer.headers.items())
        body = AnswerBody(self, request, answer, started=started)
        response = Response(
            answer.status,
            headers,
            body,
            reason=answer.reason or "",
            limit=self.upstream.max_response_bytes,
            exchange=body.exchange,
        )
        # An empty body has arrived with its headers: it must be counted before the harness has those.
        if response.is_json or answer.content_length == 0:
            await response.read_raw()
        return response

    async def _send(self, request: Request) -> aiohttp.ClientResponse:
        import aiohttp  # noqa: PLC0415  loaded already
        from yarl import URL  # noqa: PLC0415  comes with aiohttp

        if self._session is None or self._connections is None:
            raise RuntimeError("the endpoint is used outside of its `async with` block")
        headers = end_to_end(request.headers.items(), drop=_DROPPED)
        headers["Accept-Encoding"] = _readable_codings(request.headers.getall("Accept-Encoding", []))
        if self.authorization is not None:
            headers["Authorization"] = self.authorization
        # aiohttp would send a large `bytes` in one piece, and warns about it.
        body: bytes | io.BytesIO | None = io.BytesIO(request.body) if len(request.body) > _LARGE_BODY else request.body
        try:
            answer = await self._session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=headers,
                data=body or None,
                allow_redirects=False,
                proxy=self._proxy,
            )
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError):
            self._connections.shorten()
            raise
        self._connections.learn(answer.headers.get("Keep-Alive"))
        return answer

    def failure(self, request: Request, error: Exception) -> UpstreamFailure:
        """What `error` means for the harness; it is counted."""
        import aiohttp  # noqa: PLC0415  loaded already

        upstream = self.upstream
        if isinstance(error, UpstreamFailure):
            failure = error
        elif isinstance(error, aiohttp.ConnectionTimeoutError):
            text = f"no connection to {upstream.origin} within {upstream.connect_timeout:g} s"
            failure = UpstreamFailure(text, code="connect_timeout", status=504)
        elif isinstance(error, TimeoutError):
            silent = isinstance(error, aiohttp.ServerTimeoutError)
            seconds = upstream.request_timeout if silent else upstream.total_timeout
            text = (
                f"{upstream.address} {'was silent for' if silent else 'gave no complete answer within'} {seconds:g} s"
            )
            failure = UpstreamFailure(text, code="timeout", status=504)
        else:
            reason = redact_text(str(error), secrets_of(request.headers.items(), request.url))
            text = f"the exchange with {upstream.address} failed: {type(error).__name__}: {reason}"
            failure = UpstreamFailure(text, code="connection_failed")
        if request.is_counted:
            self.stats.exchange_failed(failure.status, str(failure))
            failure.is_counted = True
        return failure


class AnswerBody:
    """The body of an answer as it arrives: bounded, watched, and counted once when it is complete."""

    def __init__(self, endpoint: Endpoint, request: Request, answer: aiohttp.ClientResponse, *, started: float) -> None:
        self._endpoint = endpoint
        self._request = request
        self._answer = answer
        self._started = started
        self._received = 0
        self._observer = AnswerObserver(
            answer.status,
            answer.headers,
            limit=endpoint.upstream.max_response_bytes,
            expected=expected_of(request.url) if request.is_counted else None,
        )
        self._is_over = False
        self._is_counted = False
        self.exchange = Exchange(answer.status, sent=len(request.body))
        self._chunks: list[bytes] = []

    @property
    def is_complete(self) -> bool:
        """Whether its length or `[DONE]` said that this is all."""
        return self._is_counted

    def __aiter__(self) -> Self:
        """The body is its own iterator; it can be read once."""
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            UpstreamFailure: the answer broke off, is too large, or did not end in time.
        """
        if self._is_over:
            raise StopAsyncIteration
        try:
            chunk = await self._answer.content.readany()
            self._watch(chunk)
        except _failures() as error:
            self._is_over = True
            self._answer.close()
            failure = self._endpoint.failure(self._request, error)
            self.exchange.end(str(failure))
            raise failure from error
        if not chunk:
            self._is_over = True
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Stop reading; an answer that is not complete closes its connection, which tells the endpoint."""
        if not self._is_over:
            self._is_over = True
            self._answer.close()
        self.exchange.end("the answer was not read to its end")

    def _watch(self, chunk: bytes) -> None:
        limit = self._endpoint.upstream.max_response_bytes
        self._received += len(chunk)
        if self._received > limit:
            raise UpstreamFailure(f"the answer is larger than {limit:,} bytes", code="answer_too_large")
        if self._is_counted:
            return
        if chunk:
            if not self.exchange.first_byte_seconds:
                self.exchange.first_byte_seconds = time.monotonic() - self._started
            self._observer.feed(chunk)
            if self._request.is_counted:
                self._chunks.append(chunk)
        is_end = not chunk or self._received == self._answer.content_length
        # Counted before the last bytes go on: who has them may read the statistics, or leave.
        if is_end or self._observer.is_done:
            self._observer.finish()
            if self._observer.is_cut:
                raise UpstreamFailure("the stream ended before it was complete", code="stream_cut")
            self._count()

    def _count(self) -> None:
        self._is_counted = True
        if not self._request.is_counted:
            return
        status, error, flaw = self._answer.status, None, self._observer.flaw
        secrets = secrets_of(self._request.headers.items(), self._request.url)
        if status >= _FIRST_ERROR:
            error = redact_text(self._observer.error_text(), secrets)
        exchange = self.exchange
        exchange.flaw = None if flaw is None else redact_text(flaw, secrets)
        exchange.facts = self._observer.facts
        exchange.seconds = time.monotonic() - self._started
        exchange.received = self._received
        exchange.body = b"".join(self._chunks)
        exchange.end()
        self._endpoint.stats.answered(
            status,
            seconds=exchange.seconds,
            sent=len(self._request.body),
            received=self._received,
            facts=self._observer.facts,
            error=error,
        )


def _failures() -> tuple[type[Exception], ...]:
    """What an exchange may raise when the network or the endpoint is at fault."""
    import aiohttp  # noqa: PLC0415  loaded already

    return (aiohttp.ClientError, OSError, asyncio.TimeoutError, UpstreamFailure)


def _readable_codings(values: list[str]) -> str:
    """Those of the harness's `Accept-Encoding` that the proxy can read as well."""
    wanted = [item.strip() for value in values for item in value.split(",")]
    return ", ".join(item for item in wanted if item.partition(";")[0].strip().lower() in DECODABLE) or "identity"
