"""What happened at the endpoint during a run, counted request by request."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nemo_evaluator.adapters.answers import AnswerFacts

MAX_FAILURE_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class FailureSample:
    """One failed request: the status the harness was told, and a short message without secrets."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one kind, over the answers that reported them."""

    sum: int = 0
    max: int = 0
    answers: int = 0

    @property
    def mean(self) -> float | None:
        """Tokens per answer; None when no answer reported any."""
        return self.sum / self.answers if self.answers else None


@dataclass(frozen=True, slots=True)
class ProxyStats:
    """A snapshot. Times are seconds since the epoch, latencies seconds from sending to the last byte.

    Only POST requests are counted: they are what a model is asked by. `other_requests` are the rest (model lists,
    health checks) and those that name no address of the endpoint.

    Attributes:
        requests: requests of the harness, those still in flight included.
        answered: of these, answered completely with a 2xx status and what an answer of that kind must have.
        unusable: of these, answered completely with a 2xx status, but with something else: a page of HTML, an empty or
            broken body, an error, no choices. They have failed, like all that are not `answered`.
        by_status: statuses that the harness was told, the proxy's own 500, 502 and 504 included.
        upstream_by_status: statuses that the endpoint sent.
        connection_failures: exchanges with the endpoint that ended without a complete answer (the 502s and 504s).
        interceptor_failures: requests that failed because an interceptor did.
        abandoned: requests whose client left before the answer was complete.
        responses: answers of the endpoint, of any status; latencies are about these.
        sent: exchanges with the endpoint that were begun: what it was asked, repetitions included.
        retried: of these, repetitions by the proxy.
        cached: requests that were answered from the store.
        not_stored: answers that should have been stored and could not be.
    """

    started: float
    requests: int = 0
    answered: int = 0
    unusable: int = 0
    in_flight: int = 0
    other_requests: int = 0
    by_status: Mapping[int, int] = field(default_factory=dict)
    upstream_by_status: Mapping[int, int] = field(default_factory=dict)
    connection_failures: int = 0
    interceptor_failures: int = 0
    abandoned: int = 0
    responses: int = 0
    latency_sum: float = 0.0
    latency_max: float = 0.0
    prompt_tokens: TokenCounts = TokenCounts()
    completion_tokens: TokenCounts = TokenCounts()
    total_tokens: TokenCounts = TokenCounts()
    finish_reasons: Mapping[str, int] = field(default_factory=dict)
    tool_calls: int = 0
    function_calls: int = 0
    first_time: float | None = None
    last_time: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    recent_failures: tuple[FailureSample, ...] = ()
    sent: int = 0
    retried: int = 0
    cached: int = 0
    not_stored: int = 0

    @property
    def inference_seconds(self) -> float:
        """Seconds from the first request to the end of the last answer."""
        if self.first_time is None or self.last_time is None:
            return 0.0
        return max(0.0, self.last_time - self.first_time)

    def as_response_stats(self) -> dict[str, Any]:
        """The `response_stats` of `eval_factory_metrics.json`, with the compatible keys.

        Averages of tokens are over the answers that report them, averages of latency over all answers of the endpoint.
        """
        return {
            "description": "Requests to the endpoint: tokens, latency in milliseconds, statuses, finish reasons",
            "avg_prompt_tokens": _rounded(self.prompt_tokens.mean),
            "avg_total_tokens": _rounded(self.total_tokens.mean),
            "avg_completion_tokens": _rounded(self.completion_tokens.mean),
            "avg_latency_ms": _rounded(1000 * self.latency_sum / self.responses if self.responses else None),
            "max_prompt_tokens": self.prompt_tokens.max,
            "max_total_tokens": self.total_tokens.max,
            "max_completion_tokens": self.completion_tokens.max,
            "max_latency_ms": round(1000 * self.latency_max, 2),
            "count": self.responses,
            "successful_count": self.upstream_by_status.get(200, 0),
            "tool_calls_count": self.tool_calls,
            "function_calls_count": self.function_calls,
            "finish_reason": dict(self.finish_reasons),
            "stop_reason": {},
            "status_codes": {str(status): count for status, count in sorted(self.upstream_by_status.items())},
            "inference_time": round(self.inference_seconds, 3),
            "run_id": 0,
            "last_request_time": self.last_time,
            "inference_run_times": {"0": self._run_times()},
        }

    def _run_times(self) -> dict[str, Any]:
        waited = None if self.first_time is None else round(self.first_time - self.started, 3)
        return {
            "run_start": _iso(self.started),
            "first_request_time": _iso(self.first_time),
            "last_request_time": _iso(self.last_time),
            "inference_time": round(self.inference_seconds, 3),
            "time_to_first_request_seconds": waited,
        }


class _Tokens:
    def __init__(self) -> None:
        self.sum = 0
        self.max = 0
        self.answers = 0

    def add(self, count: int | None) -> None:
        if count is not None:
            self.sum += count
            self.max = max(self.max, count)
            self.answers += 1

    def frozen(self) -> TokenCounts:
        return TokenCounts(self.sum, self.max, self.answers)


class StatsRecorder:
    """Counts while the run goes on. The proxy's thread writes, any thread takes snapshots."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._by_status: Counter[int] = Counter()
        self._upstream_by_status: Counter[int] = Counter()
        self._finish_reasons: Counter[str] = Counter()
        self._tokens = {"prompt": _Tokens(), "completion": _Tokens(), "total": _Tokens()}
        self._latency_sum = 0.0
        self._latency_max = 0.0
        self._started = time.time()
        # Durations come from the monotonic clock, so that a clock that is set does not distort them.
        self._clock = time.monotonic()
        self._first: float | None = None
        self._last: float | None = None
        self._failures: deque[FailureSample] = deque(maxlen=MAX_FAILURE_SAMPLES)

    def other(self) -> None:
        """A request that is not counted as one to the model."""
        with self._lock:
            self._counts["other"] += 1

    def started(self) -> None:
        """The harness sent a request to the model."""
        with self._lock:
            self._counts["requests"] += 1
            self._counts["in_flight"] += 1
            if self._first is None:
                self._first = time.monotonic()

    def ended(self, status: int | None, *, flaw: str | None = None) -> None:
        """That request is over.

        Args:
            status: what the harness was told in full, None when it got no complete answer.
            flaw: why the answer cannot be used although its status says success; short, without secrets.
        """
        with self._lock:
            self._counts["in_flight"] -= 1
            self._last = time.monotonic()
            if status is None:
                return
            self._by_status[status] += 1
            if 200 <= status < 300:  # noqa: PLR2004  the statuses of success
                self._counts["answered" if flaw is None else "unusable"] += 1
                if flaw is not None:
                    self._failures.append(FailureSample(status, f"no usable answer: {flaw}"))

    def abandoned(self) -> None:
        """The client left."""
        with self._lock:
            self._counts["abandoned"] += 1

    def sent(self) -> None:
        """An exchange with the endpoint begins."""
        with self._lock:
            self._counts["exchanges"] += 1

    def retried(self) -> None:
        """The next exchange of a request is a repetition."""
        with self._lock:
            self._counts["retried"] += 1

    def cached(self) -> None:
        """A request was answered from the store."""
        with self._lock:
            self._counts["cached"] += 1

    def not_stored(self) -> None:
        """An answer that should have been stored could not be."""
        with self._lock:
            self._counts["not_stored"] += 1

    def interceptor_failed(self, message: str) -> None:
        """An interceptor raised."""
        with self._lock:
            self._counts["interceptor_failures"] += 1
            self._failures.append(FailureSample(500, message))

    def exchange_failed(self, status: int, message: str) -> None:
        """The endpoint gave no complete answer; the harness is told `status`."""
        with self._lock:
            self._counts["connection_failures"] += 1
            self._failures.append(FailureSample(status, message))

    def answered(
        self, status: int, *, seconds: float, sent: int, received: int, facts: AnswerFacts, error: str | None = None
    ) -> None:
        """The endpoint answered completely.

        Args:
            status: what it said.
            seconds: from sending the request to the last byte.
            sent: bytes of the request's body.
            received: bytes of the answer's body, as on the wire.
            facts: what the answer says about itself.
            error: a short message without secrets, for statuses of 400 and above.
        """
        with self._lock:
            self._counts["responses"] += 1
            self._counts["sent"] += sent
            self._counts["received"] += received
            self._upstream_by_status[status] += 1
            self._latency_sum += seconds
            self._latency_max = max(self._latency_max, seconds)
            self._counts["tool_calls"] += facts.tool_calls
            self._counts["function_calls"] += facts.function_calls
            self._finish_reasons.update(facts.finish_reasons)
            self._tokens["prompt"].add(facts.prompt_tokens)
            self._tokens["completion"].add(facts.completion_tokens)
            self._tokens["total"].add(facts.total_tokens)
            if error is not None:
                self._failures.append(FailureSample(status, error))

    def snapshot(self) -> ProxyStats:
        """The state of this moment."""
        with self._lock:
            counts = self._counts
            return ProxyStats(
                started=self._started,
                requests=counts["requests"],
                answered=counts["answered"],
                unusable=counts["unusable"],
                in_flight=counts["in_flight"],
                other_requests=counts["other"],
                by_status=dict(self._by_status),
                upstream_by_status=dict(self._upstream_by_status),
                connection_failures=counts["connection_failures"],
                interceptor_failures=counts["interceptor_failures"],
                abandoned=counts["abandoned"],
                responses=counts["responses"],
                latency_sum=self._latency_sum,
                latency_max=self._latency_max,
                prompt_tokens=self._tokens["prompt"].frozen(),
                completion_tokens=self._tokens["completion"].frozen(),
                total_tokens=self._tokens["total"].frozen(),
                finish_reasons=dict(self._finish_reasons),
                tool_calls=counts["tool_calls"],
                function_calls=counts["function_calls"],
                first_time=self._epoch(self._first),
                last_time=self._epoch(self._last),
                bytes_sent=counts["sent"],
                bytes_received=counts["received"],
                recent_failures=tuple(self._failures),
                sent=counts["exchanges"],
                retried=counts["retried"],
                cached=counts["cached"],
                not_stored=counts["not_stored"],
            )

    def _epoch(self, moment: float | None) -> float | None:
        return None if moment is None else self._started + (moment - self._clock)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment).astimezone().isoformat()
