"""Which interceptors and parameters may differ between the starts of one run."""

NEUTRAL = frozenset(
    {
        "budget",
        "caching",
        "concurrency",
        "endpoint",
        "failed_request_logging",
        "finish_reason",
        "progress_tracking",
        "raise_client_errors",
        "request_logging",
        "response_logging",
        "response_stats",
        "retry",
        "trace",
    }
)
"""Interceptors that change neither what an endpoint is asked nor what the harness gets: only whether, when, and who
else learns of it. A run that goes on may have other ones than before."""

NEUTRAL_PARAMETERS = frozenset(
    {
        "cache_dir",
        "enable_caching",
        "enable_reasoning_tracking",
        "log_level",
        "logging_aggregated_stats_interval",
        "output_dir",
        "stats_file_saving_interval",
    }
)
"""Parameters of the other ones of which the same holds."""
