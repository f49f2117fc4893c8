from __future__ import annotations

import dataclasses
import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.reasoning_counts import Reasoned, ReasoningCounts
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.core.runtime_metrics import record
from nemo_evaluator.core.supervise import HarnessExit

ENDED = HarnessExit(
    returncode=0,
    signal=None,
    timed_out=False,
    interrupted_by=None,
    tail="",
    seconds=10.0,
    peak_memory_bytes=100,
    peak_tree_memory_bytes=300,
    oom_killed=False,
    killed=0,
    time_limit=None,
)


def stats(*, count: int, failed: int = 0, tokens: float | None, latency: float, inference: float) -> dict[str, Any]:
    return {
        "description": "requests",
        "avg_prompt_tokens": tokens,
        "avg_latency_ms": latency,
        "max_latency_ms": 2 * latency,
        "max_prompt_tokens": 7,
        "count": count,
        "successful_count": count - failed,
        "finish_reason": {"stop": count - failed},
        "status_codes": {"200": count - failed, "500": failed},
        "inference_time": inference,
        "last_request_time": 1000.0 + count,
        "run_id": 0,
        "inference_run_times": {"0": {"inference_time": inference}},
    }


def read(folder: Path, name: str = "eval_factory_metrics.json") -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / name).read_text(), parse_constant=pytest.fail)
    return value


def parse(moment: str) -> datetime:
    assert moment.endswith("Z")
    return datetime.fromisoformat(moment)


def test_one_run(tmp_path: Path) -> None:
    record(tmp_path, ENDED, response_stats=stats(count=4, tokens=5.0, latency=20.0, inference=8.0))
    metrics = read(tmp_path)
    evaluation = metrics["evaluation"]
    start, end = parse(evaluation.pop("start_time")), parse(evaluation.pop("end_time"))
    assert (end - start).total_seconds() == pytest.approx(10.0)
    assert abs((datetime.now(UTC) - end).total_seconds()) < 60
    assert evaluation == {
        "runtime_seconds": 10.0,
        "peak_memory_bytes": 100,
        "peak_tree_memory_bytes": 300,
        "total_runs": 1,
        "inference_time_seconds": 8.0,
        "scoring_time_seconds": 2.0,
    }
    assert metrics["response_stats"]["count"] == 4
    assert read(tmp_path, "run_times/runtime_0.json")["run_id"] == "0"


def test_second_run_adds_each_run_once(tmp_path: Path) -> None:
    first = stats(count=3, failed=1, tokens=10.0, latency=10.0, inference=9.0)
    second = stats(count=1, tokens=40.0, latency=50.0, inference=1.0)
    record(tmp_path, dataclasses.replace(ENDED, interrupted_by=signal.SIGTERM, returncode=143), response_stats=first)
    record(tmp_path, dataclasses.replace(ENDED, seconds=2.0, peak_tree_memory_bytes=200), response_stats=second)
    metrics = read(tmp_path)
    evaluation = metrics["evaluation"]
    assert evaluation["runtime_seconds"] == 12.0
    assert evaluation["inference_time_seconds"] == 10.0
    assert evaluation["scoring_time_seconds"] == 2.0
    assert evaluation["total_runs"] == 2
    assert evaluation["peak_tree_memory_bytes"] == 300
    merged = metrics["response_stats"]
    assert merged["count"] == 4
    assert merged["successful_count"] == 3
    assert merged["status_codes"] == {"200": 3, "500": 1}
    assert merged["avg_prompt_tokens"] == 20.0
    assert merged["avg_latency_ms"] == 20.0
    assert merged["max_latency_ms"] == 100.0
    assert merged["last_request_time"] == 1003.0
    assert merged["inference_run_times"] == {"0": {"inference_time": 9.0}, "1": {"inference_time": 1.0}}
    assert read(tmp_path, "run_times/runtime_0.json")["interrupted"] is True


def test_other_sections_stay(tmp_path: Path) -> None:
    (tmp_path / "eval_factory_metrics.json").write_text('{"reasoning": {"total_responses": 3}}')
    record(tmp_path, ENDED)
    metrics = read(tmp_path)
    assert metrics["reasoning"] == {"total_responses": 3}
    assert "response_stats" not in metrics


def test_blocks_of_interceptors_are_those_of_the_last_run(tmp_path: Path) -> None:
    for turns in (3, 5):
        record(tmp_path, ENDED, blocks={"turns": {"turns": turns, "max": 2}})
    assert read(tmp_path)["turns"] == {"turns": 5, "max": 2}
    assert read(tmp_path, "run_times/runtime_0.json")["blocks"] == {"turns": {"turns": 3, "max": 2}}


def test_damaged_files_do_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "eval_factory_metrics.json").write_text('{"evaluation": ')
    (tmp_path / "run_times").mkdir()
    (tmp_path / "run_times" / "runtime_0.json").write_text("{}")
    record(tmp_path, ENDED)
    assert read(tmp_path)["evaluation"]["total_runs"] == 1
    assert read(tmp_path, "run_times/runtime_1.json")["run_id"] == "1"


def test_inference_never_takes_longer_than_the_run(tmp_path: Path) -> None:
    record(tmp_path, ENDED, response_stats=stats(count=1, tokens=None, latency=1.0, inference=11.0))
    assert read(tmp_path)["evaluation"]["inference_time_seconds"] == 10.0
    assert read(tmp_path)["evaluation"]["scoring_time_seconds"] == 0.0
    assert read(tmp_path)["response_stats"]["avg_prompt_tokens"] is None


def _recorded(facts: list[AnswerFacts], *, seconds: float) -> dict[str, Any]:
    recorder = StatsRecorder()
    for fact in facts:
        recorder.sent()
        recorder.answered(200, seconds=seconds, sent=1, received=1, facts=fact)
    return recorder.snapshot().as_response_stats()


def test_means_and_percentiles_of_several_starts_are_those_of_all_answers(tmp_path: Path) -> None:
    first = _recorded([AnswerFacts(10, 4, 14, reasoning_tokens=3), AnswerFacts()], seconds=0.1)
    second = _recorded([AnswerFacts(40, 6, 46)] * 18, seconds=1.0)
    record(tmp_path, ENDED, response_stats=first)
    record(tmp_path, ENDED, response_stats=second)
    merged = read(tmp_path)["response_stats"]
    assert merged["avg_prompt_tokens"] == round((10 + 18 * 40) / 19, 2)
    assert (merged["avg_reasoning_tokens"], merged["max_reasoning_tokens"]) == (3, 3)
    assert (merged["sum_completion_tokens"], merged["completion_tokens_count"]) == (4 + 18 * 6, 19)
    assert merged["sent_count"] == 20
    assert merged["p50_latency_ms"] == merged["p99_latency_ms"] == pytest.approx(1000, rel=0.05)
    assert sum(merged["latency_classes"].values()) == 20
    assert merged["cost"] is None


def test_runs_of_earlier_versions_have_no_percentiles(tmp_path: Path) -> None:
    record(tmp_path, ENDED, response_stats=stats(count=3, tokens=10.0, latency=10.0, inference=9.0))
    record(tmp_path, ENDED, response_stats=_recorded([AnswerFacts(40, 6, 46)], seconds=1.0))
    merged = read(tmp_path)["response_stats"]
    assert merged["count"] == 4
    assert merged["p50_latency_ms"] is None
    assert merged["avg_prompt_tokens"] == round((3 * 10 + 40) / 4, 2)


def test_what_was_left_out_stays_out(tmp_path: Path) -> None:
    recorder = StatsRecorder()
    recorder.left_out = frozenset({"tokens", "tool_calls", "finish_reasons"})
    for _ in range(2):
        record(tmp_path, ENDED, response_stats=recorder.snapshot().as_response_stats())
    merged = read(tmp_path)["response_stats"]
    assert not [key for key in merged if "token" in key or "calls" in key or key == "finish_reason"]


def test_reasoning_of_several_starts_is_added_once(tmp_path: Path) -> None:
    counts = ReasoningCounts()
    counts.add(Reasoned(started=True, finished=True, reasoning="one two", original="one two x", updated="x"))
    counts.add_tokens(reasoning=4, completion=6)
    other = ReasoningCounts()
    for _ in range(3):
        other.add(Reasoned(started=True, finished=False, reasoning="one", original="one", updated="one"))
    record(tmp_path, ENDED, reasoning=counts.as_dict())
    record(tmp_path, ENDED)
    record(tmp_path, ENDED, reasoning=other.as_dict())
    merged = read(tmp_path)["reasoning"]
    assert (merged["total_responses"], merged["reasoning_finished_ratio"]) == (4, 0.25)
    assert (merged["total_reasoning_words"], merged["avg_reasoning_words"]) == (5, 1.25)
    assert (merged["max_reasoning_words"], merged["avg_reasoning_tokens"]) == (2, 4)
