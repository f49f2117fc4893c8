"""`retry`: asks again when that can help, waits in between, and sits out an endpoint's absence."""

from __future__ import annotations

import asyncio
import random
from typing import Annotated, Self

from pydantic import Field, model_validator

from nemo_evaluator.adapters.backoff import Backoff, asked_wait
from nemo_evaluator.adapters.begun import begun
from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.ended import ended_response
from nemo_evaluator.adapters.failures import SHOULD_RETRY, UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.outage import SHORTEST_PROBE_GAP, OutageGate, outage_gate_of
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.repeatable import Kind, is_final_word, kind_of_failure

Status = Annotated[int, Field(ge=400, le=599)]
Seconds = Annotated[float, Field(gt=0)]

_SUCCESS = range(200, 300)
_TOO_MANY_REQUESTS = 429
_OF_GATEWAYS = (502, 503)


class RetryParameters(Parameters):
    """What is repeated, how often, and how long is waited.

    Attributes:
        statuses: answers with these are repeated.
        connection_failures: whether exchanges are repeated whose connection could not be made or broke.
        unusable_answers: whether answers are repeated that say success but are none: cut, no JSON, empty, an error.
        timeouts: whether requests are repeated that the endpoint did not answer in time. It may still be busy with
            them.
        max_attempts: most exchanges for one request of the harness; 1 repeats nothing.
        max_refusals: most answers 429 that one request puts up with. They do not count as attempts: the endpoint has
            done nothing for them.
        base_seconds: shortest wait before a repetition.
        max_wait_seconds: longest wait before a repetition, whatever the endpoint asks for.
        total_wait_seconds: longest time that one request waits for repetitions, all in all.
        outage_seconds: for how long an endpoint may be away before the run is ended; 0 to treat its absence as any
            other failure.
        max_probe_seconds: longest time between two attempts to reach an endpoint that is away.
        max_probes: how many of these attempts one request makes before it fails, when connections can be made but are
            broken off, or a gateway answers: it may be the request that the endpoint cannot bear.
    """

    statuses: tuple[Status, ...] = (408, 409, 425, 429, 500, 502, 503, 504, 529)
    connection_failures: bool = True
    unusable_answers: bool = True
    timeouts: bool = False
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    max_refusals: Annotated[int, Field(ge=0, le=1000)] = 20
    base_seconds: Seconds = 0.5
    max_wait_seconds: Seconds = 60.0
    total_wait_seconds: Seconds = 600.0
    outage_seconds: Annotated[float, Field(ge=0)] = 600.0
    max_probe_seconds: Annotated[float, Field(ge=SHORTEST_PROBE_GAP)] = 5.0
    max_probes: Annotated[int, Field(ge=1)] = 20

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.base_seconds > self.max_wait_seconds:
            raise ValueError(
                f"base_seconds ({self.base_seconds:g}), the shortest wait, must not be more than max_wait_seconds "
                f"({self.max_wait_seconds:g}), the longest"
            )
        return self


class Retry:
    """Repeats one request at a time; the gate before an absent endpoint is shared by all requests to its origin."""

    def __init__(self, parameters: RetryParameters, context: Context) -> None:
        self._parameters = parameters
        self._statuses = frozenset(parameters.statuses)
        self._ends = context.ends
        self._gate: OutageGate | None = None
        if parameters.outage_seconds:
            self._gate = outage_gate_of(context)
            self._gate.configure(parameters.outage_seconds, longest_gap=parameters.max_probe_seconds)

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Answer with the first exchange that needs no repetition, or with the last that was allowed."""
        if not request.is_counted:
            return await call_next(request)
        tries = _Tries(self._parameters)
        gate = self._gate
        while True:
            if gate is not None and gate.must_wait:
                tries.is_probe = await gate.wait()
                if self._ends.reason is not None:
                    return ended_response(self._ends)
            outcome = await self._exchange(request, call_next, tries)
            if isinstance(outcome, Response):
                return outcome
            tries.is_probe = False
            if outcome:
                await asyncio.sleep(outcome)
            if self._ends.reason is not None:
                return ended_response(self._ends)
            request.attempt += 1

    async def _exchange(self, request: Request, call_next: CallNext, tries: _Tries) -> Response | float:
        """The answer that the harness gets, or the seconds to wait before the repetition.

        Raises:
            UpstreamFailure: there was no answer, and there is no repetition.
        """
        try:
            response = await begun(await call_next(request))
            seconds = await self._after_answer(response, tries)
        except UpstreamFailure as failure:
            seconds = self._after_failure(failure, tries)
            if seconds is None:
                failure.is_last_attempt = request.attempt > 1
                raise
            return seconds
        if seconds is not None:
            await response.aclose()
            return seconds
        if request.attempt > 1 and not _is_success(response):
            # A harness that repeats as well would multiply the attempts.
            response.headers[SHOULD_RETRY] = "false"
        return response

    async def _after_answer(self, response: Response, tries: _Tries) -> float | None:
        """Seconds to wait before the repetition; None when there is none.

        Raises:
            UpstreamFailure: the answer could not be read to its end.
        """
        status, gate = response.status, self._gate
        is_failed = status in self._statuses
        if gate is not None:
            if status in _OF_GATEWAYS and is_failed:
                gate.failed(tries, f"it answers {status}", is_certain=False, is_probe=tries.is_probe)
            elif gate.is_troubled:
                gate.answered()
        if not is_failed and not (status in _SUCCESS and response.flaw and self._parameters.unusable_answers):
            return None
        await response.read_raw()
        if is_final_word(response):
            return None
        if gate is not None and gate.is_shut and status in _OF_GATEWAYS and tries.may_probe_again():
            return 0.0
        return tries.next_wait(asked_wait(status, response.headers), is_refusal=status == _TOO_MANY_REQUESTS)

    def _after_failure(self, failure: UpstreamFailure, tries: _Tries) -> float | None:
        """As `_after_answer`, for exchanges without an answer."""
        kind = kind_of_failure(failure)
        gate = self._gate
        if gate is not None and kind in ("unreachable", "broken") and self._parameters.connection_failures:
            gate.failed(tries, str(failure), is_certain=kind == "unreachable", is_probe=tries.is_probe)
            if gate.is_shut and (kind == "unreachable" or tries.may_probe_again()):
                return 0.0
        return tries.next_wait(None) if self._repeats(kind) else None

    def _repeats(self, kind: Kind) -> bool:
        parameters = self._parameters
        if kind in ("unreachable", "broken"):
            return parameters.connection_failures
        if kind == "unusable":
            return parameters.unusable_answers
        return kind == "late" and parameters.timeouts


def _is_success(response: Response) -> bool:
    return response.status in _SUCCESS and response.flaw is None


class _Tries:
    """What one request has been through."""

    __slots__ = ("_backoff", "_exchanges", "_parameters", "_probes", "_refusals", "_waited", "is_probe")

    def __init__(self, parameters: RetryParameters) -> None:
        self._parameters = parameters
        self._backoff: Backoff | None = None
        self._exchanges = 0
        self._probes = 0
        self._refusals = 0
        self._waited = 0.0
        self.is_probe = False

    def may_probe_again(self) -> bool:
        """Count a failure during an outage; whether the request may wait for another turn."""
        self._probes += self.is_probe
        if self._probes < self._parameters.max_probes:
            return True
        self._exchanges = self._parameters.max_attempts
        return False

    def next_wait(self, asked: float | None, *, is_refusal: bool = False) -> float | None:
        """Count a failed exchange; returns how long to wait before the next one, None when there is none.

        Args:
            asked: seconds that the endpoint asks for.
            is_refusal: whether it was refused for the number of requests.
        """
        parameters = self._parameters
        if is_refusal:
            self._refusals += 1
        else:
            self._exchanges += 1
        # Without repetitions a refusal is the answer like any other.
        if self._exchanges >= parameters.max_attempts or parameters.max_attempts == 1:
            return None
        if self._refusals > parameters.max_refusals:
            return None
        if self._backoff is None:
            self._backoff = Backoff(parameters.base_seconds, parameters.max_wait_seconds)
        seconds = self._backoff.next()
        if asked:
            # All who were told the same time must not come back in the same instant.
            spread = random.uniform(0, parameters.base_seconds)  # noqa: S311  it spreads load, it guards nothing
            seconds = min(asked, parameters.max_wait_seconds - parameters.base_seconds) + spread
        if self._waited + seconds > parameters.total_wait_seconds:
            return None
        self._waited += seconds
        return seconds
