"""Whole documents of `status.json` for tests of those who read them."""

from __future__ import annotations

import time
from typing import Any

from nemo_evaluator.core.status import moment, whereabouts

UPSTREAM: dict[str, Any] = {
    **dict.fromkeys(
        ("requests", "answered", "failed", "in_flight", "waiting", "sent", "retried", "cached", "not_stored"), 0
    ),
    "abandoned": 0,
    "truncated": 0,
    "refused": 0,
    "errors": {},
    "tokens": {"prompt": 0, "completion": 0, "total": 0},
    "rates": {"tokens_per_second": 0.0, "overall_tokens_per_second": 0.0},
    "latency_ms": {"p50": None, "p90": None, "p99": None},
    "cost": None,
    "currency": None,
    "concurrency": None,
}


def status(state: str = "running", *, ago: float = 0.0, **more: Any) -> dict[str, Any]:
    """A status that this process wrote some seconds ago."""
    samples: dict[str, Any] = {
        "done": 0,
        "failed": 0,
        "planned": None,
        "per_second": 0.0,
        "eta_seconds": None,
        "mean_scores": {},
    }
    return {
        "format": 1,
        **whereabouts(),
        "state": state,
        "updated": moment(time.time() - ago),
        "clock": time.monotonic() - ago,
        "elapsed_seconds": 75.0,
        **dict.fromkeys(("ended", "exit_code", "reason", "metrics_url", "store")),
        "samples": samples,
        "upstreams": {"model": UPSTREAM},
        "answers": [],
        **more,
    }
