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
        "metrics_url": None, "store": None,
        "samples": samples_document(count, planned=4, rate=RecentRate(), paused=False),
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
        (["concurrency"], "needs a whole number of at least 1 and at most 1,000,000, or off"),
        (["concurrency", "99999999999999999999"], "at most 1,000,000, or off"),
        (["concurrency", "1000001"], "at most 1,000,000, or off"),
        (["concurrency", "9" * 5000], "at most 1,000,000, or off"),
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


def test_nothing_in_the_status_acts_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    odd = "\x1b]0;owned\x07\x1b[2Jgpqa\nfake: finished"
    upstream = json.loads((_written(tmp_path / "model") / "status.json").read_text())["upstreams"]["model"]
    upstreams = {"\x1b[31mjudge": {**upstream, "errors": {"\x9b2J": 1}}}
    more = {"ended": moment(time.time()), "exit_code": 1, "reason": odd, "task": odd, "upstreams": upstreams}
    run(tmp_path / "a", "failed", **more)

    assert main(["status", str(tmp_path / "a")]) == 1

    out = capfd.readouterr().out
    assert "\\u001b]0;owned\\u0007\\u001b[2Jgpqa fake: finished" in out
    assert not {"\x1b", "\x07", "\x9b"} & set(out)


def test_an_odd_status_is_an_error_that_names_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a", samples=None)

    for command in (["status", str(tmp_path / "a")], ["control", str(tmp_path / "a"), "stop"]):
        assert main(command) == 2
        told = capfd.readouterr().err
        assert f"{tmp_path / 'a' / 'status.json'} is not the status of a run: samples is not an object" in told


def _written(folder: Path) -> Path:
    run(folder)
    return folder


def test_a_folder_without_a_run_cannot_be_controlled(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["control", str(tmp_path), "pause"]) == 2

    assert "holds no run" in capfd.readouterr().err
