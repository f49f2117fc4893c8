"""`concurrency`: how many requests an endpoint gets at the same time, as configured and as it can bear."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Annotated, Self

from pydantic import Field, model_validator

from nemo_evaluator.adapters.backoff import asked_wait
from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.ended import ended_response
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.limiter import limiter_of
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters

_PUSH_BACK = frozenset({429, 503, 529})
_FIRST_ERROR = 400
_FEWEST_LATENCIES = 8

Limit = Annotated[int, Field(ge=1, le=100_000)]


class ConcurrencyParameters(Parameters):
    """The limits of one endpoint. Chains that lead to the same origin share them.

    Attributes:
        max: most requests under way at the same time; None for as many as the harness sends.
        min: what push-back cannot bring the number below.
        adaptive: whether answers 429, 503 and 529 lower the number, and answers of success raise it again.
        latency_seconds: lower the number, too, while the median time to an answer's first byte is longer than this.
            None, because answers of language models differ in length by nature.
        max_hold_seconds: longest time for which `Retry-After` keeps all requests back.
    """

    max: Limit | None = None
    min: Limit = 1
    adaptive: bool = True
    latency_seconds: Annotated[float, Field(gt=0)] | None = None
    max_hold_seconds: Annotated[float, Field(ge=0)] = 60.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) must not be more than max ({self.max})")
        if self.latency_seconds is not None and not self.adaptive:
            raise ValueError("latency_seconds has no effect while adaptive is false; remove one of them")
        return self


class Concurrency:
    """Each exchange holds a slot from before it is sent to its end: for a stream, that of the stream."""

    def __init__(self, parameters: ConcurrencyParameters, context: Context) -> None:
        self._parameters = parameters
        self._chain = context.name
        self._ends = context.ends
        self._limiter = limiter_of(context)
        self._limiter.at_most(parameters.max, least=parameters.min)
        self._latencies: list[float] = []

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Wait for a slot, send, learn from the answer."""
        if not request.is_counted:
            return await call_next(request)
        limiter = self._limiter
        if not limiter.try_acquire():
            await limiter.acquire(self._chain)
            if self._ends.reason is not None:
                limiter.release()
                return ended_response(self._ends)
        epoch = limiter.epoch
        try:
            response = await call_next(request)
        except BaseException:
            limiter.release()
            raise
        if self._parameters.adaptive and response.status >= _FIRST_ERROR:
            self._learn(response, epoch)
        exchange = response.exchange
        if exchange is None:
            limiter.release()
        elif self._parameters.latency_seconds is None:
            exchange.when_over(self._over)
        else:
            exchange.when_over(partial(self._timed_over, epoch))
        return response

    def _learn(self, response: Response, epoch: int) -> None:
        if response.status in _PUSH_BACK:
            self._limiter.push_back(epoch)
            seconds = asked_wait(response.status, response.headers)
            if seconds:
                self._limiter.hold(min(seconds, self._parameters.max_hold_seconds))

    def _over(self, exchange: Exchange) -> None:
        if self._parameters.adaptive and _is_success(exchange):
            self._limiter.went_well()
        self._limiter.release()

    def _timed_over(self, epoch: int, exchange: Exchange) -> None:
        if _is_success(exchange) and epoch == self._limiter.epoch:
            self._time(exchange.first_byte_seconds)
        self._limiter.release()

    def _time(self, seconds: float) -> None:
        """Judge by the median of about one round trip: single answers say nothing."""
        longest = self._parameters.latency_seconds or 0.0
        self._latencies.append(seconds)
        if seconds <= longest:
            self._limiter.went_well()
        if len(self._latencies) >= max(_FEWEST_LATENCIES, self._limiter.in_use):
            if median(self._latencies) > longest:
                self._limiter.slow_down()
            self._latencies.clear()


def _is_success(exchange: Exchange) -> bool:
    return exchange.failure is None and exchange.status < _FIRST_ERROR
