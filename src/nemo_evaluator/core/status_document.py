"""What `status.json` says about requests and samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from nemo_evaluator.adapters.snapshot import LATENCY_SHARES
from nemo_evaluator.adapters.stats import ProxyStats
from nemo_evaluator.adapters.steering import EndpointLimit
from nemo_evaluator.core.rates import RecentRate
from nemo_evaluator.core.sample_count import SampleCount

RATES = (
    "requests_per_second",
    "tokens_per_second",
    "overall_requests_per_second",
    "overall_tokens_per_second",
)
TOKENS = ("prompt", "completion", "total")
_LEAST_SAMPLES = 5
_LEAST_SECONDS = 5.0
"""Before so many samples and seconds of this start nothing is said about the time left."""


class UpstreamRates:
    """The rates of one endpoint."""

    def __init__(self) -> None:
        self._requests = RecentRate()
        self._tokens = RecentRate()

    def add(self, moment: float, stats: ProxyStats) -> None:
        """Note where the counts stand at `moment`, in seconds of the monotonic clock."""
        self._requests.add(moment, stats.requests - stats.in_flight)
        self._tokens.add(moment, stats.completion_tokens.sum)

    def as_dict(self) -> dict[str, float]:
        """Per second: recently, and since the first request."""
        values = (self._requests.recent, self._tokens.recent, self._requests.overall, self._tokens.overall)
        return {name: round(value, 3) for name, value in zip(RATES, values, strict=True)}


def upstream_document(stats: ProxyStats, *, rates: UpstreamRates, limit: EndpointLimit | None) -> dict[str, Any]:
    """One endpoint's part of the document."""
    return {
        "requests": stats.requests,
        "answered": stats.answered,
        "failed": stats.requests - stats.in_flight - stats.answered,
        "in_flight": stats.in_flight,
        "waiting": limit.waiting if limit is not None else 0,
        "sent": stats.sent,
        "retried": stats.retried,
        "cached": stats.cached,
        "not_stored": stats.not_stored,
        "abandoned": stats.abandoned,
        "errors": dict(stats.errors),
        "tokens": {kind: getattr(stats, f"{kind}_tokens").sum for kind in TOKENS},
        "rates": rates.as_dict(),
        "latency_ms": _latency(stats),
        "truncated": stats.truncated,
        "refused": stats.refused,
        "cost": None if stats.cost is None else round(stats.cost, 6),
        "currency": stats.currency,
        "concurrency": None
        if limit is None
        else {"limit": limit.limit, "in_use": limit.in_use, "paused": limit.paused},
    }


def totals_document(upstreams: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The sums over all endpoints; percentiles and limits have none."""
    parts = list(upstreams.values())
    costs = [part["cost"] for part in parts if part["cost"] is not None]
    errors: Counter[str] = Counter()
    for part in parts:
        errors.update(part["errors"])
    names = ("requests", "answered", "failed", "in_flight", "waiting", "sent", "retried", "cached", "not_stored")
    return {
        **{name: sum(part[name] for part in parts) for name in names},
        "errors": dict(errors),
        "tokens": _summed([part["tokens"] for part in parts], TOKENS),
        "rates": _summed([part["rates"] for part in parts], RATES),
        "truncated": sum(part["truncated"] for part in parts),
        "refused": sum(part["refused"] for part in parts),
        "cost": round(sum(costs), 6) if costs else None,
        # A run has one, for all of its endpoints.
        "currency": next((part["currency"] for part in parts if part["currency"] is not None), None),
    }


def samples_document(count: SampleCount, *, planned: int | None, rate: RecentRate, paused: bool) -> dict[str, Any]:
    """The part about samples.

    Args:
        count: the records so far.
        planned: how many there will be; None when nobody said. Then only those of this start are shown, since
            nobody knows whether the former ones belong to it.
        rate: of the records of this start.
        paused: whether nothing is asked at present, so that nobody knows when the rest will be.
    """
    done = count.done if planned is None else min(count.done, planned)
    return {
        "done": done - count.kept if planned is None else done,
        "failed": count.failed,
        "planned": planned,
        "percent": None if planned is None else round(100 * done / planned, 2) if planned else 100.0,
        "per_second": round(rate.recent, 4),
        "eta_seconds": None if planned is None or paused else _eta(planned - done, rate),
        "mean_scores": {name: round(value, 4) for name, value in count.mean_scores.items()},
    }


def _eta(left: int, rate: RecentRate) -> float | None:
    if left <= 0:
        return 0.0
    if rate.grown < _LEAST_SAMPLES or rate.seconds < _LEAST_SECONDS or not rate.recent:
        return None
    return round(left / rate.recent, 1)


def _latency(stats: ProxyStats) -> dict[str, float | None]:
    if not stats.responses:
        return {"mean": None, "max": None, **{f"p{share}": None for share in LATENCY_SHARES}}
    found = {"mean": stats.latency_sum / stats.responses, "max": stats.latency_max}
    found |= {f"p{share}": stats.latency.quantile(share / 100) or 0.0 for share in LATENCY_SHARES}
    return {name: round(1000 * seconds, 2) for name, seconds in found.items()}


def _summed(parts: list[Mapping[str, float]], names: tuple[str, ...]) -> dict[str, float]:
    return {name: round(sum(part[name] for part in parts), 3) for name in names}
