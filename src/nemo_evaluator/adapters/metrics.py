"""A run's numbers for Prometheus, in its text format (version 0.0.4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from nemo_evaluator.adapters.distribution import bounds
from nemo_evaluator.adapters.snapshot import TOKEN_KINDS
from nemo_evaluator.adapters.stats import ProxyStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "nemo_evaluator_"
_LATENCY_BUCKETS = tuple(2.0**power for power in range(-7, 11))
"""Upper bounds in seconds, from 8 ms to 17 minutes; class bounds of the histogram, so that the counts are exact."""

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNumbers:
    """What of a run is not one endpoint's; None where nobody knows.

    Attributes:
        samples_done: scored or failed.
        samples_planned: how many there will be.
        paused: whether no request begins.
        waiting: requests that wait for their turn, by endpoint.
        limits: most requests at once, by endpoint that has a limit.
    """

    samples_done: int | None = None
    samples_planned: int | None = None
    paused: bool = False
    waiting: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)


def metrics_text(endpoints: Mapping[str, ProxyStats], run: RunNumbers) -> str:
    """The numbers of all endpoints, by their name in the label `upstream`, and those of the run."""
    return "".join(f"{line}\n" for line in (*_endpoint_lines(endpoints), *_run_lines(run)))


def _endpoint_lines(endpoints: Mapping[str, ProxyStats]) -> Iterator[str]:
    yield from _family(
        "requests_total",
        "counter",
        "Requests of the harness that are over, by the status it was told; none: it got no complete answer.",
        (
            ({"upstream": name, "status": status}, count)
            for name, stats in endpoints.items()
            for status, count in _by_status(stats)
        ),
    )
    yield from _family(
        "tokens_total",
        "counter",
        "Tokens as the endpoint reports them.",
        (
            ({"upstream": name, "kind": kind}, getattr(stats, f"{kind}_tokens").sum)
            for name, stats in endpoints.items()
            for kind in TOKEN_KINDS
        ),
    )
    for metric, (kind, text, attribute) in _PLAIN.items():
        values = ((name, getattr(stats, attribute)) for name, stats in endpoints.items())
        yield from _family(
            metric, kind, text, (({"upstream": name}, value) for name, value in values if value is not None)
        )
    yield from _family(
        "cost_total",
        "counter",
        "Cost of the answers, in the currency of the price table.",
        (
            ({"upstream": name, "currency": stats.currency or ""}, stats.cost)
            for name, stats in endpoints.items()
            if stats.cost is not None
        ),
    )
    yield from _latency_lines(endpoints)


_PLAIN = {
    "in_flight": ("gauge", "Requests of the harness that are not over.", "in_flight"),
    "answered_total": ("counter", "Requests of the harness that got a usable answer.", "answered"),
    "sent_total": ("counter", "Exchanges with the endpoint, repetitions included.", "sent"),
    "retried_total": ("counter", "Repetitions by the proxy.", "retried"),
    "cached_total": ("counter", "Requests answered from the store.", "cached"),
    "not_stored_total": ("counter", "Answers that could not be stored.", "not_stored"),
    "truncated_total": ("counter", "Answers cut at the most tokens allowed.", "truncated"),
}


def _latency_lines(endpoints: Mapping[str, ProxyStats]) -> Iterator[str]:
    name = f"{_PREFIX}latency_seconds"
    yield f"# HELP {name} Seconds from sending a request to the last byte of its answer."
    yield f"# TYPE {name} histogram"
    for upstream, stats in endpoints.items():
        classes = [(bounds(number)[1], count) for number, count in stats.latency.counts.items()]
        for bucket in (*_LATENCY_BUCKETS, math.inf):
            below = sum(count for high, count in classes if high <= bucket)
            yield _sample("latency_seconds_bucket", {"upstream": upstream, "le": _number(bucket)}, below)
        yield _sample("latency_seconds_sum", {"upstream": upstream}, stats.latency.sum)
        yield _sample("latency_seconds_count", {"upstream": upstream}, stats.latency.count)


def _run_lines(run: RunNumbers) -> Iterator[str]:
    known = {"samples_done": run.samples_done, "samples_planned": run.samples_planned, "paused": int(run.paused)}
    texts = {
        "samples_done": "Samples scored or failed.",
        "samples_planned": "Samples that the run is to have.",
        "paused": "Whether the run is paused.",
    }
    for name, value in known.items():
        yield from _family(name, "gauge", texts[name], [({}, value)] if value is not None else [])
    for name, values in (("waiting", run.waiting), ("concurrency_limit", run.limits)):
        text = "Requests that wait for their turn." if name == "waiting" else "Most requests at once at present."
        yield from _family(name, "gauge", text, (({"upstream": key}, value) for key, value in values.items()))


def _by_status(stats: ProxyStats) -> Iterator[tuple[str, int]]:
    yield from ((str(status), count) for status, count in sorted(stats.by_status.items()))
    untold = stats.requests - stats.in_flight - sum(stats.by_status.values())
    if untold > 0:
        yield "none", untold


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    lines = [_sample(name, labels, value) for labels, value in samples]
    if lines:
        yield f"# HELP {_PREFIX}{name} {text}"
        yield f"# TYPE {_PREFIX}{name} {kind}"
        yield from lines


def _sample(name: str, labels: Labels, value: float) -> str:
    written = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{_PREFIX}{name}{{{written}}} {_number(value)}" if written else f"{_PREFIX}{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(value)
