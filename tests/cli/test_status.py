from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.cli.main import main
from nemo_evaluator.core.rates import RecentRate
from nemo_evaluator.core.sample_count import SampleCount
from nemo_evaluator.core.status import moment, whereabouts, write_status
from nemo_evaluator.core.status_document import UpstreamRates, samples_document, totals_document, upstream_document


def run(folder: Path, state: str = "running", **more: Any) -> None:
    """A folder of a run that has had two answers, one of them an error, and has 1 of 4 samples."""
    folder.mkdir(parents=True)
    recorder = StatsRecorder()
    for status, error in ((200, None), (429, "slow down")):
        recorder.started()
        recorder.sent()
        facts = AnswerFacts(completion_tokens=20, total_tokens=30) if error is None else AnswerFacts()
        recorder.answered(status, seconds=1.5, sent=1, received=1, facts=facts, error=error)
        recorder.ended(status)
    (folder / "samples.jsonl").write_text("")
    count = SampleCount(folder / "samples.jsonl")
    (folder / "samples.jsonl").write_text('{"status": "scored", "scores": {"accuracy": 1}}\n')
    count.update()
    upstreams = {"model": upstream_document(recorder.snapshot(), rates=UpstreamRates(), limit=None)}
    document = {
        "format": 1, **whereabouts(), "task": "gpqa", "model": "m", "state": state, "updated": moment(time.time()),
        "clock": time.monotonic(), "elapsed_seconds": 75.0, "ended": None, "exit_code": None, "reason": None,
        "metrics_url": None, "samples": samples_document(count, planned=4, rate=RecentRate(), paused=False),
        "totals": totals_document(upstreams), "upstreams": upstreams, "answers": [],
    }  # fmt: skip
    write_status(folder, {**document, **more})


def test_lines_say_how_the_run_stands(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a")

    assert main(["status", str(tmp_path / "a")]) == 0

    out = capfd.readouterr().out
    assert f"{tmp_path / 'a'}: running for 1m 15s, process " in out
    assert "samples   1 of 4 samples (25%), time left unknown, accuracy 1.000 so far" in out
    assert "model     2 requests, 1 answered, 1 failed, 30 tokens" in out
    assert "errors: 1 x HTTP 429" in out
    assert "latency 1.5 s / 1.5 s / 1.5 s (p50, p90, p99)" in out
    assert "\x1b" not in out


def test_several_folders_are_shown_and_one_that_failed_counts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "a")
    ended = {"ended": moment(time.time()), "exit_code": 3, "reason": "the endpoint answered 401"}
    run(tmp_path / "b", "failed", **ended)

    assert main(["status", str(tmp_path / "a"), str(tmp_path / "b")]) == 1

    out = capfd.readouterr().out
    assert "running for" in out
    assert "failed after 1m 15s" in out
    assert "exit code 3" in out
    assert "reason    the endpoint answered 401" in out


def test_json_has_an_object_for_each_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", "finished", ended=moment(time.time()), exit_code=0)

    assert main(["status", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0

    found = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [document["state"] for document in found] == ["running", "finished"]
    assert found[0]["folder"] == str(tmp_path / "a")
    assert found[0]["upstreams"]["model"]["errors"] == {"http_429": 1}


def test_watching_ends_with_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a", "interrupted", ended=moment(time.time()), exit_code=143)

    assert main(["status", str(tmp_path / "a"), "--watch"]) == 1

    assert "interrupted after" in capfd.readouterr().out


def test_a_folder_without_a_run_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2

    assert "holds no run (no status.json)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["concurrency"], "needs a whole number of at least 1, or off"),
        (["concurrency", "0"], "needs a whole number"),
        (["concurrency", "-3"], "No such option"),
        (["pause", "3"], "pause takes no value"),
        (["stop", "--upstream", "judge"], "stop takes no --upstream"),
        (["faster"], "'faster' is not one of"),
    ],
)
def test_impossible_commands_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    run(tmp_path / "a")

    assert main(["control", str(tmp_path / "a"), *arguments]) == 2

    assert words in capfd.readouterr().err


def test_a_folder_without_a_run_cannot_be_controlled(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["control", str(tmp_path), "pause"]) == 2

    assert "holds no run" in capfd.readouterr().err
