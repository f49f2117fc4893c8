"""`request_logging`: writes the first requests of a run to the log."""

from __future__ import annotations

import logging
from typing import Annotated

from pydantic import Field

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.interceptors.exchange_log import exchange_log_of
from nemo_evaluator.adapters.interceptors.exchange_text import body_text, headers_text, request_line, secrets_in
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters


class RequestLoggingParameters(Parameters):
    """What is written, and of how many requests of the run; `max_requests` null means all of them."""

    log_request_body: bool = True
    log_request_headers: bool = True
    max_requests: Annotated[int, Field(ge=0)] | None = 2


class RequestLogging:
    """Logs requests as they are at its place of the chain, one line each, at the level INFO.

    Bodies are cut, media in them shortened, and everything that may be a secret is hidden.
    """

    def __init__(self, parameters: RequestLoggingParameters, context: Context) -> None:
        self._parameters = parameters
        self._log = exchange_log_of(context)
        self._secrets = context.secrets
        self._left = parameters.max_requests

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Log the request."""
        if request.is_counted and self._left != 0 and self._log.is_heard(logging.INFO):
            if self._left is not None:
                self._left -= 1
            self._log.write(logging.INFO, f"Incoming request: {self._text(request)}")
        return await call_next(request)

    def _text(self, request: Request) -> str:
        secrets = secrets_in(request, self._secrets)
        parts = [request_line(request)]
        if self._parameters.log_request_headers:
            parts.append(f"headers: {headers_text(request.headers, secrets)}")
        if self._parameters.log_request_body:
            parts.append(f"body: {body_text(request.body, request.headers, secrets)}")
        return " ".join(parts)
