"""What happens at the endpoint during a run, counted request by request."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from nemo_evaluator.adapters.distribution import Histogram
from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.outcomes import SampleOutcomes
from nemo_evaluator.adapters.reasoning_counts import ReasoningCounts
from nemo_evaluator.adapters.series import Span, TimeSeries
from nemo_evaluator.adapters.snapshot import TOKEN_KINDS, FailureSample, ProxyStats, TokenCounts

__all__ = ["MAX_FAILURE_SAMPLES", "FailureSample", "ProxyStats", "StatsRecorder", "TokenCounts"]

MAX_FAILURE_SAMPLES = 5


class _Tokens:
    __slots__ = ("answers", "max", "sum")

    def __init__(self) -> None:
        self.sum = 0
        self.max = 0
        self.answers = 0

    def add(self, count: int) -> None:
        self.sum += count
        self.answers += 1
        if count > self.max:  # noqa: PLR1730  a call of `max` for each answer costs more
            self.max = count

    def frozen(self) -> TokenCounts:
        return TokenCounts(self.sum, self.max, self.answers)


class StatsRecorder:
    """Counts while the run goes on. The proxy's thread writes, any thread takes snapshots.

    Attributes:
        reasoning: where the interceptor `reasoning` counts; None without it.
        left_out: see `ProxyStats.left_out`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._by_status: Counter[int] = Counter()
        self._upstream_by_status: Counter[int] = Counter()
        self._finish_reasons: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._tokens = {kind: _Tokens() for kind in TOKEN_KINDS}
        self._latency = Histogram()
        self._completion_lengths = Histogram()
        self._outcomes = SampleOutcomes()
        self._cost: float | None = None
        self._currency: str | None = None
        self._started = time.time()
        # Durations come from the monotonic clock, so that a clock that is set does not distort them.
        self._clock = time.monotonic()
        self._series = TimeSeries(self._clock)
        self._first: float | None = None
        self._last: float | None = None
        self._failures: deque[FailureSample] = deque(maxlen=MAX_FAILURE_SAMPLES)
        self.reasoning: ReasoningCounts | None = None
        self.left_out: frozenset[str] = frozenset()
        self._blocks: dict[str, Callable[[], Mapping[str, Any]]] = {}

    def publish(self, name: str, numbers: Callable[[], Mapping[str, Any]]) -> None:
        """Let `numbers` be part of every snapshot as the block `name`; it may be called from any thread."""
        with self._lock:
            self._blocks[name] = numbers

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
                    self._fail("unusable", FailureSample(status, f"no usable answer: {flaw}"))

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
            self._series.at(time.monotonic()).cached += 1

    def not_stored(self) -> None:
        """An answer that should have been stored could not be."""
        with self._lock:
            self._counts["not_stored"] += 1

    def use_currency(self, currency: str) -> None:
        """There is a price table, and costs are in `currency`."""
        with self._lock:
            self._cost, self._currency = self._cost or 0.0, currency

    def spent(self, cost: float) -> None:
        """An answer of the endpoint cost this much."""
        with self._lock:
            self._cost = (self._cost or 0.0) + cost

    def outcome(self, sample: str, facts: AnswerFacts) -> None:
        """A usable answer came for a sample, from the endpoint or from the store."""
        with self._lock:
            self._outcomes.note(sample, facts)

    def interceptor_failed(self, message: str) -> None:
        """An interceptor raised."""
        with self._lock:
            self._counts["interceptor_failures"] += 1
            self._fail("interceptor", FailureSample(500, message))

    def exchange_failed(self, status: int, message: str, *, kind: str | None = None) -> None:
        """The endpoint gave no complete answer; the harness is told `status`.

        Args:
            status: such as 502.
            message: what went wrong, without secrets.
            kind: what it is counted as in `errors`, such as `timeout`; by default its status says it.
        """
        with self._lock:
            self._counts["connection_failures"] += 1
            self._fail(kind or f"no_answer_{status}", FailureSample(status, message))

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
            counts = self._counts
            counts["responses"] += 1
            counts["sent"] += sent
            counts["received"] += received
            self._upstream_by_status[status] += 1
            self._latency.add(seconds)
            span = self._series.at(time.monotonic())
            span.answers += 1
            span.seconds += seconds
            self._count_facts(facts, span)
            if error is not None:
                self._fail(f"http_{status}", FailureSample(status, error))

    def _count_facts(self, facts: AnswerFacts, span: Span) -> None:
        tokens = self._tokens
        if facts.prompt_tokens is not None:
            tokens["prompt"].add(facts.prompt_tokens)
            span.prompt_tokens += facts.prompt_tokens
        if facts.completion_tokens is not None:
            tokens["completion"].add(facts.completion_tokens)
            self._completion_lengths.add(facts.completion_tokens)
            span.completion_tokens += facts.completion_tokens
        if facts.total_tokens is not None:
            tokens["total"].add(facts.total_tokens)
        if facts.reasoning_tokens is not None:
            tokens["reasoning"].add(facts.reasoning_tokens)
        if facts.cached_tokens is not None:
            tokens["cached"].add(facts.cached_tokens)
        for reason in facts.finish_reasons:
            self._finish_reasons[reason] += 1
        self._count_rare(facts)

    def _count_rare(self, facts: AnswerFacts) -> None:
        """What most answers have not: kept off the dictionaries for their sake."""
        counts = self._counts
        if facts.tool_calls or facts.function_calls:
            counts["tool_calls"] += facts.tool_calls
            counts["function_calls"] += facts.function_calls
        if facts.is_truncated:
            counts["truncated"] += 1
        if facts.is_refused:
            counts["refused"] += 1
        if facts.is_empty:
            counts["empty"] += 1

    def _fail(self, kind: str, failure: FailureSample) -> None:
        self._errors[kind] += 1
        self._series.at(time.monotonic()).errors += 1
        self._failures.append(failure)

    def snapshot(self) -> ProxyStats:
        """The state of this moment."""
        with self._lock:
            counts, outcomes, latency = self._counts, self._outcomes, self._latency.frozen()
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
                latency_sum=latency.sum,
                latency_max=latency.max,
                latency=latency,
                completion_lengths=self._completion_lengths.frozen(),
                prompt_tokens=self._tokens["prompt"].frozen(),
                completion_tokens=self._tokens["completion"].frozen(),
                total_tokens=self._tokens["total"].frozen(),
                reasoning_tokens=self._tokens["reasoning"].frozen(),
                cached_tokens=self._tokens["cached"].frozen(),
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
                blocks={name: numbers() for name, numbers in self._blocks.items()},
                empty=counts["empty"],
                refused=counts["refused"],
                truncated=counts["truncated"],
                truncated_samples=outcomes.truncated,
                refused_samples=outcomes.refused,
                empty_samples=outcomes.empty,
                samples_known=outcomes.are_named,
                cost=self._cost,
                currency=self._currency,
                errors=dict(self._errors),
                series=self._series.frozen(),
                reasoning=None if self.reasoning is None else self.reasoning.as_dict(),
                left_out=self.left_out,
            )

    def _epoch(self, moment: float | None) -> float | None:
        return None if moment is None else self._started + (moment - self._clock)
