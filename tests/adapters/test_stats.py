from __future__ import annotations

import threading
from datetime import datetime

import pytest

from nemo_evaluator.adapters.answers import AnswerFacts
from nemo_evaluator.adapters.stats import ProxyStats, StatsRecorder

COMPATIBLE_KEYS = {
    "description",
    "avg_prompt_tokens",
    "avg_total_tokens",
    "avg_completion_tokens",
    "avg_latency_ms",
    "max_prompt_tokens",
    "max_total_tokens",
    "max_completion_tokens",
    "max_latency_ms",
    "count",
    "successful_count",
    "tool_calls_count",
    "function_calls_count",
    "finish_reason",
    "stop_reason",
    "status_codes",
    "inference_time",
    "run_id",
    "last_request_time",
    "inference_run_times",
}


def _answer(recorder: StatsRecorder, status: int, *, seconds: float, facts: AnswerFacts | None = None) -> None:
    recorder.started()
    recorder.answered(status, seconds=seconds, sent=10, received=20, facts=facts or AnswerFacts())
    recorder.ended(status)


def test_the_numbers_are_those_of_the_requests() -> None:
    recorder = StatsRecorder()
    _answer(recorder, 200, seconds=0.1, facts=AnswerFacts(10, 2, 12, ["stop"], 1, 0))
    _answer(recorder, 200, seconds=0.3, facts=AnswerFacts(20, 8, 28, ["length"], 0, 2))
    # An answer without usage, and one that failed: neither counts as zero tokens.
    _answer(recorder, 200, seconds=0.2)
    _answer(recorder, 429, seconds=0.2)
    recorder.started()
    recorder.exchange_failed(502, "no connection")
    recorder.ended(502)
    stats = recorder.snapshot()
    written = stats.as_response_stats()
    assert written.keys() >= COMPATIBLE_KEYS
    assert (written["avg_prompt_tokens"], written["max_prompt_tokens"]) == (15.0, 20)
    assert (written["avg_completion_tokens"], written["max_completion_tokens"]) == (5.0, 8)
    assert (written["avg_total_tokens"], written["max_total_tokens"]) == (20.0, 28)
    assert (written["avg_latency_ms"], written["max_latency_ms"]) == (200.0, 300.0)
    assert (written["count"], written["successful_count"]) == (4, 3)
    assert written["status_codes"] == {"200": 3, "429": 1}
    assert written["finish_reason"] == {"stop": 1, "length": 1}
    assert (written["tool_calls_count"], written["function_calls_count"]) == (1, 2)
    assert (stats.requests, stats.answered, stats.connection_failures, stats.in_flight) == (5, 3, 1, 0)
    assert stats.by_status == {200: 3, 429: 1, 502: 1}
    assert (stats.bytes_sent, stats.bytes_received) == (40, 80)


def test_times_are_in_order() -> None:
    recorder = StatsRecorder()
    _answer(recorder, 200, seconds=0.1)
    stats = recorder.snapshot()
    assert stats.first_time is not None
    assert stats.last_time is not None
    assert stats.started <= stats.first_time <= stats.last_time
    run = stats.as_response_stats()["inference_run_times"]["0"]
    moments = [datetime.fromisoformat(run[key]) for key in ("run_start", "first_request_time", "last_request_time")]
    assert moments == sorted(moments)
    assert all(moment.tzinfo is not None for moment in moments)


def test_a_run_without_requests_has_no_averages() -> None:
    written = StatsRecorder().snapshot().as_response_stats()
    assert written["count"] == 0
    assert written["avg_prompt_tokens"] is None
    assert written["avg_latency_ms"] is None
    assert written["inference_time"] == 0


def test_only_the_last_failures_are_kept() -> None:
    recorder = StatsRecorder()
    for number in range(100):
        recorder.exchange_failed(502, f"failure {number}")
    assert [failure.message for failure in recorder.snapshot().recent_failures] == [
        f"failure {number}" for number in range(95, 100)
    ]


def test_a_success_that_is_no_answer_is_not_answered() -> None:
    recorder = StatsRecorder()
    for flaw in (None, "the body is empty"):
        recorder.started()
        recorder.ended(200, flaw=flaw)
    stats = recorder.snapshot()
    assert (stats.requests, stats.answered, stats.unusable, stats.by_status) == (2, 1, 1, {200: 2})
    assert [failure.message for failure in stats.recent_failures] == ["no usable answer: the body is empty"]


def test_a_snapshot_does_not_change_and_is_whole() -> None:
    recorder = StatsRecorder()
    before = recorder.snapshot()
    done = threading.Event()
    torn: list[ProxyStats] = []

    def watch() -> None:
        while not done.is_set():
            stats = recorder.snapshot()
            if stats.requests - stats.in_flight != sum(stats.by_status.values()):
                torn.append(stats)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(2000):
        _answer(recorder, 200, seconds=0.1)
    done.set()
    watcher.join()
    assert before.requests == 0
    assert recorder.snapshot().requests == 2000
    assert torn == []


def test_failures_are_counted_by_their_kind() -> None:
    recorder = StatsRecorder()
    recorder.exchange_failed(504, "slow", kind="timeout")
    recorder.exchange_failed(502, "gone")
    recorder.interceptor_failed("reasoning raised")
    for _ in range(2):
        recorder.answered(429, seconds=0.1, sent=1, received=1, facts=AnswerFacts(), error="too many")
    recorder.started()
    recorder.ended(200, flaw="the body is empty")
    stats = recorder.snapshot()
    assert stats.errors == {"timeout": 1, "no_answer_502": 1, "interceptor": 1, "http_429": 2, "unusable": 1}
    assert sum(span.errors for span in stats.series.spans) == 6


def test_costs_tokens_and_spreads_add_up() -> None:
    recorder = StatsRecorder()
    assert recorder.snapshot().cost is None
    recorder.use_currency("EUR")
    assert (recorder.snapshot().cost, recorder.snapshot().as_response_stats()["currency"]) == (0.0, "EUR")
    recorder.spent(0.25)
    for seconds in (0.1, 0.2, 0.4):
        facts = AnswerFacts(10, 4, 14, reasoning_tokens=3, cached_tokens=8)
        recorder.answered(200, seconds=seconds, sent=1, received=1, facts=facts)
    recorder.cached()
    stats = recorder.snapshot()
    assert stats.cost == 0.25
    assert (stats.reasoning_tokens.sum, stats.cached_tokens.sum, stats.completion_lengths.count) == (9, 24, 3)
    written = stats.as_response_stats()
    assert written["p50_latency_ms"] == pytest.approx(200, rel=0.05)
    assert written["p99_latency_ms"] == pytest.approx(400, rel=0.05)
    spans = stats.series.spans
    assert (sum(span.answers for span in spans), sum(span.cached for span in spans)) == (3, 1)
    assert (sum(span.prompt_tokens for span in spans), sum(span.completion_tokens for span in spans)) == (30, 12)


def test_a_sample_without_a_name_makes_them_go_by_content() -> None:
    recorder = StatsRecorder()
    for number in range(1000):
        recorder.outcome(f"s{number}", AnswerFacts(choices=1, has_text=True))
    recorder.outcome("s1", AnswerFacts(choices=1))
    stats = recorder.snapshot()
    assert (stats.empty_samples, stats.samples_known) == (1, True)
    recorder.outcome("content:00", AnswerFacts(choices=1, has_text=True))
    assert recorder.snapshot().samples_known is False
