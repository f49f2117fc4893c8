"""What happened at the endpoint up to a moment, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nemo_evaluator.adapters.distribution import Distribution
from nemo_evaluator.adapters.series import Series

TOKEN_KINDS = ("prompt", "completion", "total", "reasoning", "cached")
LATENCY_SHARES = (50, 90, 99)
"""Which percentiles of the latency are written."""


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
        empty: answers of the endpoint that are usable, and say and call nothing.
        refused: answers of the endpoint that were refused, by a filter or by the model.
        truncated: answers of the endpoint that were cut at the most tokens allowed.
        truncated_samples: samples whose answer was cut, replayed ones included; each counts once. This number and the
            next two are zero without the interceptor `finish_reason`.
        refused_samples: samples that were refused an answer.
        empty_samples: samples whose answer says and calls nothing.
        samples_known: whether the harness names the samples; otherwise they go by their content. None when there was
            no answer yet.
        cost: of the answers of the endpoint; None when there is no price table.
        currency: what the cost is in; None likewise.
        latency: seconds from sending to the last byte, over all answers of the endpoint.
        completion_lengths: tokens of the answers that report them.
        errors: failures by kind: `http_429`, `timeout`, `unusable`, `interceptor` …
        series: what happened when.
        reasoning: what the interceptor `reasoning` counted, as in `eval_factory_metrics.json`; None without it.
        left_out: groups of keys that `as_response_stats` leaves out: `tokens`, `finish_reasons`, `tool_calls`.
        blocks: what interceptors counted, by the name of the block; each may be written as JSON.
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
    reasoning_tokens: TokenCounts = TokenCounts()
    cached_tokens: TokenCounts = TokenCounts()
    empty: int = 0
    refused: int = 0
    truncated: int = 0
    truncated_samples: int = 0
    refused_samples: int = 0
    empty_samples: int = 0
    samples_known: bool | None = None
    cost: float | None = None
    currency: str | None = None
    latency: Distribution = field(default_factory=Distribution)
    completion_lengths: Distribution = field(default_factory=Distribution)
    errors: Mapping[str, int] = field(default_factory=dict)
    series: Series = field(default_factory=Series)
    reasoning: Mapping[str, Any] | None = None
    left_out: frozenset[str] = frozenset()
    blocks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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
        written: dict[str, Any] = {
            "description": "Requests to the endpoint: tokens, latency in milliseconds, statuses, finish reasons",
            **({} if "tokens" in self.left_out else self._token_stats()),
            "avg_latency_ms": _rounded(1000 * self.latency_sum / self.responses if self.responses else None),
            "max_latency_ms": round(1000 * self.latency_max, 2),
            **{f"p{share}_latency_ms": self._latency_ms(share) for share in LATENCY_SHARES},
            "latency_classes": {str(number): count for number, count in sorted(self.latency.counts.items())},
            "count": self.responses,
            "successful_count": self.upstream_by_status.get(200, 0),
            "sent_count": self.sent,
            "retried_count": self.retried,
            "cached_count": self.cached,
            "failed_exchanges_count": self.connection_failures,
            "cost": self.cost,
            "currency": self.currency,
            "stop_reason": {},
            "status_codes": {str(status): count for status, count in sorted(self.upstream_by_status.items())},
            "inference_time": round(self.inference_seconds, 3),
            "run_id": 0,
            "last_request_time": self.last_time,
            "inference_run_times": {"0": self._run_times()},
        }
        if "finish_reasons" not in self.left_out:
            written["finish_reason"] = dict(self.finish_reasons)
        if "tool_calls" not in self.left_out:
            written |= {"tool_calls_count": self.tool_calls, "function_calls_count": self.function_calls}
        return written

    def _token_stats(self) -> dict[str, Any]:
        written: dict[str, Any] = {}
        for kind in TOKEN_KINDS:
            counts: TokenCounts = getattr(self, f"{kind}_tokens")
            written[f"avg_{kind}_tokens"] = _rounded(counts.mean)
            written[f"max_{kind}_tokens"] = counts.max
            written[f"sum_{kind}_tokens"] = counts.sum
            written[f"{kind}_tokens_count"] = counts.answers
        return written

    def _latency_ms(self, share: int) -> float | None:
        seconds = self.latency.quantile(share / 100)
        return None if seconds is None else round(1000 * seconds, 2)

    def _run_times(self) -> dict[str, Any]:
        waited = None if self.first_time is None else round(self.first_time - self.started, 3)
        return {
            "run_start": _iso(self.started),
            "first_request_time": _iso(self.first_time),
            "last_request_time": _iso(self.last_time),
            "inference_time": round(self.inference_seconds, 3),
            "time_to_first_request_seconds": waited,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment).astimezone().isoformat()
