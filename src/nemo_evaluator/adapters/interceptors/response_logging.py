"""`response_logging` and `failed_request_logging`: write answers to the log, all of them or those that failed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Self

from pydantic import Field

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext, InterceptorFailure
from nemo_evaluator.adapters.interceptors.exchange_log import exchange_log_of
from nemo_evaluator.adapters.interceptors.exchange_text import (
    LOOKED_AT,
    body_text,
    headers_text,
    request_line,
    secrets_in,
)
from nemo_evaluator.adapters.messages import BodyStream, Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.redaction import hide_secrets

_FIRST_ERROR = 400


class ResponseLoggingParameters(Parameters):
    """What is written, and of how many answers of the run; `max_responses` null means all of them."""

    log_response_body: bool = True
    log_response_headers: bool = True
    max_responses: Annotated[int, Field(ge=0)] | None = None


class ResponseLogging:
    """Logs answers as they are at its place of the chain, one line each, at the level INFO.

    A streamed answer is passed on as it comes and logged at its end. Bodies are cut, media in them shortened, and
    everything that may be a secret is hidden.
    """

    def __init__(self, parameters: ResponseLoggingParameters, context: Context) -> None:
        self._parameters = parameters
        self._log = exchange_log_of(context)
        self._secrets = context.secrets
        self._left = parameters.max_responses

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Log the answer."""
        response = await call_next(request)
        if self._left == 0 or not request.is_counted or not self._log.is_heard(logging.INFO):
            return response
        if self._left is not None:
            self._left -= 1
        parameters = self._parameters

        def write(body: bytes, size: int, failure: str | None) -> None:
            secrets = secrets_in(request, self._secrets)
            text = _answer_text(
                request,
                response,
                body if parameters.log_response_body else None,
                secrets=secrets,
                size=size,
                headers=parameters.log_response_headers,
            )
            self._log.write(logging.INFO, f"Outgoing response: {text}{_ending(failure, secrets)}")

        watch_body(response, write)
        return response


class FailedRequestLoggingParameters(Parameters):
    """How many failures of the run are written; null means all of them."""

    max_failures: Annotated[int, Field(ge=0)] | None = 1000


class FailedRequestLogging:
    """Logs requests that failed together with what came back, one line each, at the level ERROR.

    Failed are those with a status of 400 or more, those without a complete or usable answer, and those that an
    interceptor failed on. After `max_failures` of them one line says that no more are written.
    """

    def __init__(self, parameters: FailedRequestLoggingParameters, context: Context) -> None:
        self._log = exchange_log_of(context)
        self._secrets = context.secrets
        self._left = parameters.max_failures

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Watch how the request ends."""
        try:
            response = await call_next(request)
        except (UpstreamFailure, InterceptorFailure) as failure:
            self._write(request, f"failed: {hide_secrets(str(failure), secrets_in(request, self._secrets))}")
            raise
        if response.status >= _FIRST_ERROR:

            def write(body: bytes, size: int, failure: str | None) -> None:
                secrets = secrets_in(request, self._secrets)
                text = _answer_text(
                    request, response, body, secrets=secrets, size=size, headers=True, names_request=False
                )
                self._write(request, text + _ending(failure, secrets))

            watch_body(response, write)
        elif response.exchange is not None and request.is_counted:
            response.exchange.when_over(lambda exchange: self._over(request, response, exchange))
        return response

    def _over(self, request: Request, response: Response, exchange: Exchange) -> None:
        if not exchange.is_usable:
            problem = exchange.failure or exchange.flaw or f"status {exchange.status}"
            secrets = secrets_in(request, self._secrets)
            text = f"no usable answer: {hide_secrets(problem, secrets)}"
            if exchange.body:
                text += f" body: {body_text(exchange.body, response.headers, secrets)}"
            self._write(request, text)

    def _write(self, request: Request, outcome: str) -> None:
        if self._left == 0:
            return
        if self._left is not None:
            self._left -= 1
        secrets = secrets_in(request, self._secrets)
        self._log.write(
            logging.ERROR,
            f"Failed request: {request_line(request)} headers: {headers_text(request.headers, secrets)} "
            f"body: {body_text(request.body, request.headers, secrets)} -> {outcome}",
        )
        if self._left == 0:
            self._log.write(
                logging.ERROR,
                "Failed request: further ones are not written here (max_failures); the statistics count them",
            )


WhenSeen = Callable[[bytes, int, str | None], None]
"""Told the beginning of a body, the size of the whole, and why the whole never came, or None."""


def watch_body(response: Response, tell: WhenSeen) -> None:
    """Call `tell` with the body of `response`: at once when it is whole, else when it ends; nothing is held back."""
    if isinstance(response.body, bytes):
        tell(response.body[:LOOKED_AT], len(response.body), None)
    else:
        response.body = _Watched(response.body, tell)


class _Watched:
    """A body on its way, whose beginning is kept."""

    __slots__ = ("_chunks", "_kept", "_size", "_stream", "_tell")

    def __init__(self, stream: BodyStream, tell: WhenSeen) -> None:
        self._stream = stream
        self._chunks = aiter(stream)
        self._tell: WhenSeen | None = tell
        self._kept = bytearray()
        self._size = 0

    @property
    def is_complete(self) -> bool:
        return self._stream.is_complete

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._over(None)
            raise
        except UpstreamFailure as failure:
            self._over(str(failure))
            raise
        self._size += len(chunk)
        if len(self._kept) < LOOKED_AT:
            self._kept += chunk[: LOOKED_AT - len(self._kept)]
        if self._stream.is_complete:
            # Who has the last bytes may leave, and never ask for the end.
            self._over(None)
        return chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
        self._over("it was not read to its end")

    def _over(self, failure: str | None) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(bytes(self._kept), self._size, failure)


def _ending(failure: str | None, secrets: set[str]) -> str:
    return "" if failure is None else f" (incomplete: {hide_secrets(failure, secrets)})"


def _answer_text(
    request: Request,
    response: Response,
    body: bytes | None,
    *,
    secrets: set[str],
    size: int,
    headers: bool,
    names_request: bool = True,
) -> str:
    parts = [f"{response.status}"]
    if names_request:
        parts.append(f"to {request_line(request)}")
    exchange = response.exchange
    if exchange is not None and exchange.source == "store":
        parts.append("from the store")
    elif exchange is not None and exchange.seconds:
        parts.append(f"in {exchange.seconds:.3f} s")
    if headers:
        parts.append(f"headers: {headers_text(response.headers, secrets)}")
    if body is not None:
        parts.append(f"body: {body_text(body, response.headers, secrets, size=size)}")
    return " ".join(parts)
