"""Parameters of the interceptors and hooks that this version accepts but does not run.

None of them changes a request, an answer or a score. Their names, parameters and defaults are those of the
compatible interface.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nemo_evaluator.adapters.parameters import Parameters

Count = Annotated[int, Field(ge=0)]
Interval = Annotated[int, Field(ge=1)]


class CachingParameters(Parameters):
    """Keeps answers, and gives them again to equal requests."""

    cache_dir: str = "/tmp"  # noqa: S108  the default of the compatible interface; nothing is written there
    reuse_cached_responses: bool = False
    save_requests: bool = False
    save_responses: bool = True
    max_saved_requests: Count | None = None
    max_saved_responses: Count | None = None


class ResponseStatsParameters(Parameters):
    """Counts tokens, latencies and statuses; the proxy always does, whatever the parameters say."""

    collect_token_stats: bool = True
    collect_finish_reasons: bool = True
    collect_tool_calls: bool = True
    stats_file_saving_interval: Interval | None = 100
    save_individuals: bool = True
    cache_dir: str = "/tmp/response_stats_interceptor"  # noqa: S108  as above
    logging_aggregated_stats_interval: Interval = 100


class PostEvalReportParameters(Parameters):
    """Writes a report of requests and answers after the run."""

    report_types: tuple[Literal["html", "json"], ...] = ("html",)
    html_report_size: Count | None = None
