"""Times, memory and request statistics of the runs in an output directory.

Each run leaves one file `run_times/runtime_<N>.json`. The sections `evaluation`, `response_stats` and `reasoning` of
`eval_factory_metrics.json` are worked out of all of them every time, so nothing can be added twice.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nemo_evaluator.adapters.distribution import Distribution
from nemo_evaluator.adapters.reasoning_counts import COUNTS, SIZES, with_means
from nemo_evaluator.adapters.snapshot import LATENCY_SHARES, TOKEN_KINDS
from nemo_evaluator.core.supervise import HarnessExit
from nemo_evaluator.files import write_atomically

METRICS_FILE = "eval_factory_metrics.json"
RUN_TIMES_FOLDER = "run_times"

_LOGGER = logging.getLogger(__name__)
_SUMS = (
    "count",
    "successful_count",
    "tool_calls_count",
    "function_calls_count",
    "sent_count",
    "retried_count",
    "cached_count",
    "failed_exchanges_count",
    *(f"sum_{kind}_tokens" for kind in TOKEN_KINDS),
    *(f"{kind}_tokens_count" for kind in TOKEN_KINDS),
)
_COUNTS_BY_NAME = ("finish_reason", "stop_reason", "status_codes", "latency_classes")
_WEIGHTS = {
    "avg_prompt_tokens": "successful_count",
    "avg_total_tokens": "successful_count",
    "avg_completion_tokens": "successful_count",
    "avg_latency_ms": "count",
}
_MAXIMA = (*(f"max_{kind}_tokens" for kind in TOKEN_KINDS), "max_latency_ms")


def record(
    output_dir: Path,
    ended: HarnessExit,
    *,
    response_stats: Mapping[str, Any] | None = None,
    reasoning: Mapping[str, Any] | None = None,
    blocks: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the files for a run that has just ended, well or not.

    Args:
        output_dir: the folder of the run.
        ended: how the harness ended; the times are those of the harness, from its start until now.
        response_stats: what the proxy saw in this run, with the keys of the compatible interface.
        reasoning: what the interceptor `reasoning` counted in this run, likewise; None without it.
        blocks: what other interceptors counted, such as `turns`; answers from the store count in them, so those of the
            last run stand for all.

    Raises:
        OSError: a file cannot be written.
    """
    folder = output_dir / RUN_TIMES_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    number = next(number for number in range(1_000_000) if not _run_file(folder, number).exists())
    end = datetime.now(UTC)
    stats = dict(response_stats or {})
    _write(
        _run_file(folder, number),
        {
            "run_id": str(number),
            "start_time": _iso(end - timedelta(seconds=ended.seconds)),
            "end_time": _iso(end),
            "runtime_seconds": round(ended.seconds, 3),
            "inference_time_seconds": min(float(stats.get("inference_time") or 0.0), round(ended.seconds, 3)),
            "peak_memory_bytes": ended.peak_memory_bytes,
            "peak_tree_memory_bytes": ended.peak_tree_memory_bytes,
            "returncode": ended.returncode,
            "interrupted": ended.interrupted_by is not None,
            "response_stats": stats,
            **({"reasoning": dict(reasoning)} if reasoning else {}),
            **({"blocks": dict(blocks)} if blocks else {}),
        },
    )
    runs = list(_read_runs(folder))
    metrics = _read(output_dir / METRICS_FILE) or {}
    metrics["evaluation"] = _evaluation(runs)
    merged = merge_response_stats([(run["run_id"], run.get("response_stats") or {}) for run in runs])
    if merged:
        metrics["response_stats"] = merged
    reasoned = [run["reasoning"] for run in runs if run.get("reasoning")]
    if reasoned:
        metrics["reasoning"] = merge_reasoning(reasoned)
    metrics |= blocks or {}
    _write(output_dir / METRICS_FILE, metrics)


def merge_response_stats(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The statistics of several runs as those of one.

    Means of tokens come from the sums where all runs have them. Those of older versions have none: their means are
    weighted by successful answers, which is exact where all of those report their tokens.

    Args:
        runs: run ids, in order, each with that run's own statistics.
    """
    present = [(run_id, stats) for run_id, stats in runs if stats]
    if not present:
        return {}
    merged = dict(present[-1][1])
    every = [stats for _, stats in present]
    for key in _present(_SUMS, every):
        merged[key] = sum(int(stats.get(key) or 0) for stats in every)
    for key in _present(_MAXIMA, every):
        merged[key] = max((stats.get(key) or 0) for stats in every)
    for key in _present(_COUNTS_BY_NAME, every):
        total: Counter[str] = Counter()
        for stats in every:
            total.update(stats.get(key) or {})
        merged[key] = dict(total)
    for key in _present(_WEIGHTS, every):
        weight = _WEIGHTS[key]
        merged[key] = _mean((stats.get(key), int(stats.get(weight) or 0)) for stats in every)
    for kind in TOKEN_KINDS:
        if all(f"sum_{kind}_tokens" in stats for stats in every):
            answers = merged[f"{kind}_tokens_count"]
            merged[f"avg_{kind}_tokens"] = round(merged[f"sum_{kind}_tokens"] / answers, 2) if answers else None
    merged |= _latency_percentiles(merged, every)
    costs = [stats["cost"] for stats in every if stats.get("cost") is not None]
    merged["cost"] = sum(costs) if costs else None
    merged["currency"] = next((stats["currency"] for stats in every[::-1] if stats.get("currency")), None)
    merged["inference_time"] = round(sum(float(stats.get("inference_time") or 0.0) for stats in every), 3)
    last_times = [stats["last_request_time"] for stats in every if stats.get("last_request_time") is not None]
    merged["last_request_time"] = max(last_times, default=None)
    merged["run_id"] = int(present[-1][0])
    merged["inference_run_times"] = {
        run_id: times for run_id, stats in present for times in (stats.get("inference_run_times") or {}).values()
    }
    return merged


def merge_reasoning(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the interceptor `reasoning` counted in several runs, as that of one."""
    merged = dict(runs[-1])
    for key in (*COUNTS, *(f"total_{size}" for size in SIZES), *(f"{size}_count" for size in SIZES)):
        merged[key] = sum(int(run.get(key) or 0) for run in runs)
    for size in SIZES:
        merged[f"max_{size}"] = max(int(run.get(f"max_{size}") or 0) for run in runs)
    return with_means(merged)


def _present(keys: Iterable[str], every: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of `keys` that any run has: what was left out stays out."""
    return [key for key in keys if any(key in stats for stats in every)]


def _latency_percentiles(merged: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The percentiles over all runs; none of them where a run has no classes to work them out from."""
    if not all("latency_classes" in stats for stats in every):
        return {f"p{share}_latency_ms": None for share in LATENCY_SHARES}
    counts = {int(number): count for number, count in merged["latency_classes"].items()}
    spread = Distribution(counts, sum(counts.values()), max=merged["max_latency_ms"] / 1000)
    found = {share: spread.quantile(share / 100) for share in LATENCY_SHARES}
    return {
        f"p{share}_latency_ms": None if seconds is None else round(1000 * seconds, 2)
        for share, seconds in found.items()
    }


def _evaluation(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    inference = [float(run.get("inference_time_seconds") or 0.0) for run in runs]
    scoring = [max(0.0, run["runtime_seconds"] - waited) for run, waited in zip(runs, inference, strict=True)]
    return {
        "runtime_seconds": round(sum(run["runtime_seconds"] for run in runs), 3),
        "start_time": min(run["start_time"] for run in runs),
        "end_time": max(run["end_time"] for run in runs),
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
        "peak_tree_memory_bytes": max(run["peak_tree_memory_bytes"] for run in runs),
        "total_runs": len(runs),
        "inference_time_seconds": round(sum(inference), 3),
        "scoring_time_seconds": round(sum(scoring), 3),
    }


def _mean(values: Iterable[tuple[float | None, int]]) -> float | None:
    """The weighted mean of the values that are there."""
    known = [(value, weight) for value, weight in values if value is not None and weight > 0]
    total = sum(weight for _, weight in known)
    return round(sum(value * weight for value, weight in known) / total, 2) if total else None


def _run_file(folder: Path, number: int) -> Path:
    return folder / f"runtime_{number}.json"


def _read_runs(folder: Path) -> Iterable[dict[str, Any]]:
    """The runs that ended here, in order. A file that somebody damaged is left out, and said so."""
    needed = {"run_id", "start_time", "end_time", "runtime_seconds", "peak_memory_bytes", "peak_tree_memory_bytes"}
    files = [path for path in folder.glob("runtime_*.json") if path.stem.removeprefix("runtime_").isdecimal()]
    for path in sorted(files, key=lambda path: int(path.stem.removeprefix("runtime_"))):
        run = _read(path)
        if run is None or not needed <= run.keys():
            _LOGGER.warning("%s is not the record of a run; it is left out of the totals", path)
        else:
            yield run


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
