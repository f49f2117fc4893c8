from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.metrics import RunNumbers, metrics_text
from nemo_evaluator.adapters.metrics_server import serving_metrics
from nemo_evaluator.adapters.stats import ProxyStats, StatsRecorder
from nemo_evaluator.errors import MisconfigurationError


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name and labels, as the reader of the format itself finds them."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def stats(*seconds: float) -> ProxyStats:
    recorder = StatsRecorder()
    for value in seconds:
        recorder.started()
        recorder.sent()
        facts = AnswerFacts(prompt_tokens=3, completion_tokens=2, total_tokens=5)
        recorder.answered(200, seconds=value, sent=10, received=10, facts=facts)
        recorder.ended(200)
    recorder.started()
    recorder.ended(None)
    recorder.started()
    return recorder.snapshot()


def of(upstream: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted({"upstream": upstream, **labels}.items()))


def test_the_numbers_are_those_of_the_run() -> None:
    numbers = RunNumbers(samples_done=4, samples_planned=9, paused=True, waiting={"model": 2}, limits={"model": 8})
    found = parsed(metrics_text({"model": stats(0.1, 0.3, 2.5), "judge": stats(1.0)}, numbers))

    assert found["nemo_evaluator_requests_total"] == {
        of("model", status="200"): 3,
        of("model", status="none"): 1,
        of("judge", status="200"): 1,
        of("judge", status="none"): 1,
    }
    assert found["nemo_evaluator_tokens_total"][of("model", kind="completion")] == 6
    assert found["nemo_evaluator_in_flight"][of("model")] == 1
    assert found["nemo_evaluator_samples_done"] == {(): 4}
    assert found["nemo_evaluator_samples_planned"] == {(): 9}
    assert found["nemo_evaluator_paused"] == {(): 1}
    assert found["nemo_evaluator_waiting"] == {of("model"): 2}
    assert found["nemo_evaluator_concurrency_limit"] == {of("model"): 8}
    # No price table, no cost.
    assert "nemo_evaluator_cost_total" not in found


def test_the_histogram_is_cumulative_and_complete() -> None:
    found = parsed(metrics_text({"model": stats(0.1, 0.3, 2.5)}, RunNumbers()))

    buckets = {
        float(dict(labels)["le"]): count for labels, count in found["nemo_evaluator_latency_seconds_bucket"].items()
    }
    ordered = [buckets[bound] for bound in sorted(buckets)]
    assert ordered == sorted(ordered)
    assert (buckets[0.0625], buckets[0.125], buckets[0.5], buckets[2.0], buckets[4.0]) == (0, 1, 2, 2, 3)
    assert buckets[float("inf")] == found["nemo_evaluator_latency_seconds_count"][of("model")] == 3
    assert found["nemo_evaluator_latency_seconds_sum"][of("model")] == pytest.approx(2.9)


def test_what_is_known_of_cost_is_told() -> None:
    found = parsed(metrics_text({"model": replace(stats(1.0), cost=1.25, currency="EUR")}, RunNumbers()))

    assert found["nemo_evaluator_cost_total"] == {(("currency", "EUR"), *of("model")): 1.25}


def test_any_name_is_a_label() -> None:
    name = 'a "judge"\\ with\nlines'
    found = parsed(metrics_text({name: stats(1.0)}, RunNumbers()))

    assert found["nemo_evaluator_sent_total"] == {of(name): 1}


def test_they_are_served_on_loopback() -> None:
    with serving_metrics(0) as listener:
        assert listener is not None
        url = listener.url
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(url, timeout=5).read()
        listener.text = lambda: "up 1\n"
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=5) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert response.read() == b"up 1\n"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url.removesuffix("/metrics") + "/other", timeout=5).read()


def test_a_port_in_use_is_named() -> None:
    with serving_metrics(0) as listener:
        assert listener is not None
        port = int(listener.url.split(":")[2].split("/")[0])
        with pytest.raises(MisconfigurationError, match=f"metrics_port: 127.0.0.1:{port}"), serving_metrics(port):
            pass
