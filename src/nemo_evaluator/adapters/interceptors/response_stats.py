"""`response_stats`: what is written about tokens, latencies and finish reasons, and when it is told in between."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import MODEL, Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.stats_file import PeriodicStats

Interval = Annotated[int, Field(ge=1)]


class ResponseStatsParameters(Parameters):
    """What is left out of `response_stats`, and how often it is told while the run goes on.

    `save_individuals` is part of the compatible interface and has no effect: the store keeps each request and answer.
    """

    collect_token_stats: bool = True
    collect_finish_reasons: bool = True
    collect_tool_calls: bool = True
    stats_file_saving_interval: Interval | None = 100
    save_individuals: bool = True
    cache_dir: str | None = None
    logging_aggregated_stats_interval: Interval = 100

    @property
    def left_out(self) -> frozenset[str]:
        """The groups of keys that are not written."""
        kept = {
            "tokens": self.collect_token_stats,
            "finish_reasons": self.collect_finish_reasons,
            "tool_calls": self.collect_tool_calls,
        }
        return frozenset(name for name, is_kept in kept.items() if not is_kept)


class ResponseStats:
    """The proxy counts in any case; this says what of it is written. Answers from the store are not counted again.

    `response_stats.json` in `cache_dir` has the state of every `stats_file_saving_interval` answers, and the last one.
    """

    def __init__(self, parameters: ResponseStatsParameters, context: Context) -> None:
        context.stats.left_out = parameters.left_out
        self._periodic = PeriodicStats(
            lambda: context.stats.snapshot().as_response_stats(),
            _summary,
            log_every=parameters.logging_aggregated_stats_interval,
            path=stats_path(parameters.cache_dir, "response_stats", context.name),
            write_every=parameters.stats_file_saving_interval,
        )

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Count the answer at its end."""
        response = await call_next(request)
        if request.is_counted and response.exchange is not None:
            response.exchange.when_over(self._over)
        return response

    def _over(self, exchange: Exchange) -> None:
        if exchange.source == "endpoint" and exchange.failure is None:
            self._periodic.count()

    async def close(self) -> None:
        """Write the last state."""
        await self._periodic.close()


def stats_path(folder: str | None, kind: str, upstream: str) -> Path | None:
    """The file for the statistics `kind` of one endpoint; None without a folder."""
    if folder is None:
        return None
    return Path(folder) / (f"{kind}.json" if upstream == MODEL else f"{kind}.{upstream}.json")


def _summary(stats: Mapping[str, Any]) -> str:
    parts = [f"{stats['count']} answers, {stats['successful_count']} with status 200"]
    if stats["avg_latency_ms"] is not None:
        parts.append(f"latency {stats['avg_latency_ms']:g} ms on average, {stats['p99_latency_ms']:g} ms at p99")
    parts += [
        f"{stats[f'avg_{kind}_tokens']:g} {kind} tokens on average"
        for kind in ("prompt", "completion")
        if stats.get(f"avg_{kind}_tokens") is not None
    ]
    if stats.get("finish_reason"):
        parts.append("finish reasons " + ", ".join(f"{name} {n}" for name, n in stats["finish_reason"].items()))
    return "; ".join(parts)
