"""The innermost link of the chain: the exchange with the endpoint."""

from __future__ import annotations

import time
from functools import lru_cache, partial
from typing import Self
from urllib.parse import urljoin, urlsplit

from nemo_evaluator.adapters.answer_body import AnswerBody
from nemo_evaluator.adapters.answer_head import AnswerHead
from nemo_evaluator.adapters.answers import AnswerObserver
from nemo_evaluator.adapters.arriving import ArrivingAnswer
from nemo_evaluator.adapters.client_protocol import (
    EXCHANGE_FAILURES,
    BrokenExchangeError,
    SilentError,
    StaleConnectionError,
    TooSlowError,
)
from nemo_evaluator.adapters.connections import Connections, ConnectTimeoutError
from nemo_evaluator.adapters.dialing import Dialer
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import SHOULD_RETRY, UpstreamFailure
from nemo_evaluator.adapters.messages import Request, Response, error_body
from nemo_evaluator.adapters.redaction import redact_text, secrets_in_authorization, secrets_of
from nemo_evaluator.adapters.request_head import RequestHeads
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.adapters.upstream import DEFAULT_REQUEST_TIMEOUT, Upstream
from nemo_evaluator.adapters.usable import expected_of

_FIRST_ERROR = 400
_REDIRECTIONS = frozenset(range(300, 400)) - {304}
_OF_REDIRECTIONS = ("Location", "Content-Location", "Refresh", "Content-Encoding", "Content-Length")
_FAILURES = (*EXCHANGE_FAILURES, ConnectTimeoutError)

_expected_of = lru_cache(maxsize=256)(expected_of)


class Endpoint:
    """Sends requests to one upstream over kept-alive connections, and counts what comes back.

    Any answer of the endpoint, errors too, is returned as it is, but for redirections of a POST: these become errors
    that say where to, because clients that follow them go around the proxy, with keys in headers of their own. JSON
    answers are read whole before they are returned, so that one that breaks off is a failure and never half an answer;
    everything else is passed on chunk by chunk. Failures are not repeated: that is for `retry`, or for the harness.

    The one exception is a request that met a kept connection while the endpoint closed it: it is sent once more, over
    a new connection. RFC 9110, 9.2.2, allows that for a POST when the client knows that its semantics are idempotent.
    They are here: a question to a model changes nothing at the endpoint, the same one asked twice costs tokens at
    most, and of the two the harness gets the only one that was answered.

    Args:
        upstream: the endpoint.
        stats: where exchanges are counted.
        authorization: goes in place of the harness's `Authorization`; None to send what the harness sends, unless the
            endpoint's URL has user information.

    Raises:
        MisconfigurationError: certificates cannot be loaded, or the environment asks for a proxy that cannot be used.
    """

    def __init__(self, upstream: Upstream, stats: StatsRecorder, *, authorization: str | None = None) -> None:
        self.upstream = upstream
        self.authorization = authorization or upstream.basic_authorization
        self.secrets = secrets_in_authorization(self.authorization)
        self.stats = stats
        self._silence = upstream.request_timeout or DEFAULT_REQUEST_TIMEOUT
        self._dialer = Dialer(upstream)
        self._heads = RequestHeads(
            upstream,
            authorization=self.authorization,
            proxy_authorization=self._dialer.proxy_authorization,
            is_absolute=self._dialer.is_absolute,
        )
        self._connections: Connections | None = None

    async def __aenter__(self) -> Self:
        """Make the connection pool of the running event loop."""
        upstream = self.upstream
        self._connections = Connections(
            self._dialer.open,
            connect_timeout=upstream.connect_timeout,
            silence=self._silence,
            total=upstream.total_timeout,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        if self._connections is not None:
            await self._connections.close()

    async def __call__(self, request: Request) -> Response:
        """Exchange one request.

        Raises:
            UpstreamFailure: no connection, no complete answer, or no answer in time.
            ValueError: the request cannot be written, or goes to another origin.
        """
        started = time.monotonic()
        head = self._heads.head(request)
        if request.is_counted:
            self.stats.sent()
            if request.attempt > 1:
                self.stats.retried()
        try:
            answer = await self._exchange(request, head)
        except _FAILURES as error:
            raise self._failure(request, error) from error
        return self._response(request, answer, started)

    async def _exchange(self, request: Request, head: bytes) -> ArrivingAnswer:
        connections = self._connections
        if connections is None:
            raise RuntimeError("the endpoint is used outside of its `async with` block")
        limit, is_head = self.upstream.max_response_bytes, request.method == "HEAD"
        body = request.body
        connection = connections.take() or await connections.open()
        try:
            answer = await connection.exchange(head, body, limit=limit, is_head=is_head)
        except StaleConnectionError:
            connections.shorten()
            if request.is_counted:
                self.stats.sent()
                self.stats.retried()
            connection = await connections.open()
            answer = await connection.exchange(head, body, limit=limit, is_head=is_head)
        if answer.head is not None and answer.head.keep_alive is not None:
            connections.learn(answer.head.keep_alive)
        return answer

    def _response(self, request: Request, answer: ArrivingAnswer, started: float) -> Response:
        head = answer.head
        if head is None:
            raise RuntimeError("an answer without a head was taken for one")
        limit = self.upstream.max_response_bytes
        exchange = Exchange(head.status, sent=len(request.body))
        if head.status in _REDIRECTIONS and request.is_counted:
            return self._redirected(request, answer, head, exchange, started)
        observer = None
        if request.is_counted:
            expected = _expected_of(request.url)
            observer = AnswerObserver(head.status, head.headers, limit=limit, expected=expected)
        # An empty body has arrived with its head: it must be counted before the harness has that.
        if not answer.is_stream or (answer.is_complete and not answer.received):
            exchange.received = answer.received
            exchange.seconds = answer.ended - started
            exchange.first_byte_seconds = answer.first_byte - started if answer.received else 0.0
            body: bytes | AnswerBody = self._whole(request, answer, exchange, observer)
        else:
            body = AnswerBody(
                answer,
                exchange,
                observer=observer,
                on_complete=partial(self._count, request),
                on_error=partial(self._failure, request),
                started=started,
            )
            request.opened(body)
        return Response(head.status, head.headers, body, reason=head.reason, limit=limit, exchange=exchange)

    def _redirected(
        self, request: Request, answer: ArrivingAnswer, head: AnswerHead, exchange: Exchange, started: float
    ) -> Response:
        """The same status without the place to go to: clients would go there around the proxy, keys and all."""
        text = redact_text(_redirection(request.url, head), self._secrets_of(request))
        answer.abandon()
        exchange.seconds = time.monotonic() - started
        exchange.received = answer.received
        exchange.flaw = text
        exchange.body = body = error_body(text, kind="upstream_error", code="redirection")
        exchange.end()
        self.stats.answered(
            head.status,
            seconds=exchange.seconds,
            sent=exchange.sent,
            received=exchange.received,
            facts=exchange.facts,
            error=text,
        )
        for name in _OF_REDIRECTIONS:
            head.headers.popall(name, None)
        head.headers["Content-Type"] = "application/json"
        head.headers[SHOULD_RETRY] = "false"
        return Response(head.status, head.headers, body, reason=head.reason, exchange=exchange)

    def _whole(
        self, request: Request, answer: ArrivingAnswer, exchange: Exchange, observer: AnswerObserver | None
    ) -> bytes:
        body = answer.take()
        if observer is not None:
            exchange.body = body
            try:
                observer.feed(body)
                observer.finish()
            except UpstreamFailure as error:
                raise self._failure(request, error) from error
        self._count(request, exchange, observer)
        return body

    def _count(self, request: Request, exchange: Exchange, observer: AnswerObserver | None) -> None:
        """The answer is complete."""
        error = None
        if observer is not None:
            exchange.facts = observer.facts
            if observer.flaw is not None:
                exchange.flaw = redact_text(observer.flaw, self._secrets_of(request))
            if exchange.status >= _FIRST_ERROR:
                error = redact_text(observer.error_text(), self._secrets_of(request))
        exchange.end()
        if observer is not None:
            self.stats.answered(
                exchange.status,
                seconds=exchange.seconds,
                sent=exchange.sent,
                received=exchange.received,
                facts=exchange.facts,
                error=error,
            )

    def _failure(self, request: Request, error: Exception) -> UpstreamFailure:
        """What `error` means for the harness; it is counted."""
        failure = error if isinstance(error, UpstreamFailure) else self._meaning(request, error)
        if request.is_counted and not failure.is_counted:
            self.stats.exchange_failed(failure.status, str(failure), kind=failure.code)
            failure.is_counted = True
        return failure

    def _meaning(self, request: Request, error: Exception) -> UpstreamFailure:
        upstream = self.upstream
        if isinstance(error, ConnectTimeoutError):
            text = f"no connection to {upstream.origin} within {upstream.connect_timeout:g} s"
            return UpstreamFailure(text, code="connect_timeout", status=504)
        if isinstance(error, SilentError):
            text = f"{upstream.address} was silent for {self._silence:g} s"
            return UpstreamFailure(text, code="timeout", status=504)
        if isinstance(error, TooSlowError):
            text = f"{upstream.address} gave no complete answer within {upstream.total_timeout:g} s"
            return UpstreamFailure(text, code="timeout", status=504)
        reason = str(error) if isinstance(error, BrokenExchangeError) else f"{type(error).__name__}: {error}"
        reason = redact_text(reason, self._secrets_of(request))
        return UpstreamFailure(f"the exchange with {upstream.address} failed: {reason}", code="connection_failed")

    def _secrets_of(self, request: Request) -> set[str]:
        """What the endpoint got, and may repeat."""
        return secrets_of(request.headers.items(), request.url).union(self.secrets)


def _redirection(url: str, head: AnswerHead) -> str:
    location = head.headers.get("Location", "")
    try:
        parts = urlsplit(urljoin(url, location))
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if location else "no place"
    except ValueError:
        place = "a place that cannot be read"
    return (
        f"the endpoint answers {head.status}, a redirection to {place}; redirects are not followed: give the final URL"
    )
