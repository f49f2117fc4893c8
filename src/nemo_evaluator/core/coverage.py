"""How much of what was to be asked was answered and scored."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nemo_evaluator.adapters.stats import ProxyStats
from nemo_evaluator.errors import EndpointError

SAMPLE_KEYS = ("planned", "scored", "failed", "skipped", "truncated", "refused", "empty", "unparsed")


def coverage(
    summary: Mapping[str, Any] | None, stats: ProxyStats, others: Mapping[str, ProxyStats] = MappingProxyType({})
) -> dict[str, Any]:
    """Samples as the harness counts them, where it does, and requests as the proxy counted them.

    Args:
        summary: `summary.json` of the harness; None when it writes none.
        stats: what the proxy saw on the way to the model.
        others: likewise for further endpoints, by their names, such as a judge's.

    Returns:
        `SAMPLE_KEYS` at the top; `requests` to the model; `upstreams`, where there are any, with the requests to each.
    """
    samples = dict((summary or {}).get("coverage") or {})
    covered: dict[str, Any] = {
        **{key: samples[key] for key in SAMPLE_KEYS if key in samples},
        "requests": requests(stats),
    }
    if others:
        covered["upstreams"] = {name: requests(other) for name, other in others.items()}
    return covered


def requests(stats: ProxyStats) -> dict[str, Any]:
    """What the proxy counted on the way to one endpoint; docs/coverage.md says what each number means."""
    counted: dict[str, Any] = {
        "sent": stats.requests,
        "answered": stats.answered,
        "failed": stats.requests - stats.answered,
        "unusable": stats.unusable,
        "abandoned": stats.abandoned,
        "interceptor_failures": stats.interceptor_failures,
        "truncated": stats.truncated,
        "refused": stats.refused,
        "empty": stats.empty,
        "exchanges": stats.sent,
        "failed_exchanges": stats.connection_failures,
        "retried": stats.retried,
        "cached": stats.cached,
        "not_stored": stats.not_stored,
    }
    if stats.samples_known is not None:
        counted["samples"] = {
            "known_by": "name" if stats.samples_known else "content",
            "truncated": stats.truncated_samples,
            "refused": stats.refused_samples,
            "empty": stats.empty_samples,
        }
    return counted


def refuse_unanswered(stats: ProxyStats, *, endpoint: str = "the endpoint") -> None:
    """A run in which every request failed is a failure, whatever the harness made of it.

    Args:
        stats: what the proxy saw on the way to one endpoint.
        endpoint: what to call it.

    Raises:
        EndpointError: requests were sent and none got a usable answer; says what came back.
    """
    if stats.requests and not stats.answered:
        kinds = ", ".join(f"{count} x HTTP {status}" for status, count in sorted(stats.by_status.items()))
        seen = "; ".join(f"{failure.status}: {failure.message}" for failure in stats.recent_failures[-3:])
        raise EndpointError(
            f"all {stats.requests} requests to {endpoint} failed ({kinds or 'no connection'}), so there is no score."
            + _unusable(stats)
            + (f" Seen: {seen}" if seen else "")
        )


def _unusable(stats: ProxyStats) -> str:
    if not stats.unusable:
        return ""
    whose = "Every answer" if stats.unusable == stats.requests else f"{stats.unusable} of the answers"
    return (
        f" {whose} had a status of success, but is not usable: it is no JSON, an error, or has no choices."
        " Check that the URL is that of the model's API and fits the endpoint's type."
    )
