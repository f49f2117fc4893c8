from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.core.probe import PARSER, probe_definition
from tests.core.watching import PATIENCE, answers, status, wait_for

from nemo_evaluator import env
from nemo_evaluator.cli.main import main
from nemo_evaluator.core.stop_signal import StopSignal
from nemo_evaluator.core.watch import Watch
from nemo_evaluator.testing import FakeEndpoint, demonstration_answers
from nemo_evaluator.testing.demonstration_rows import demonstration_rows

ROOT = Path(__file__).parents[2]
DEFINITION = probe_definition(
    after="--parallel {{config.params.parallelism}}", params="{request_timeout: 30, parallelism: 1, extra: {n: 4}}"
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def probe(add_harness: Callable[..., Path]) -> None:
    file = add_harness("probe", DEFINITION)
    (file.parent / "output.py").write_text(PARSER)


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    """Answers yes to every second question, after a twentieth of a second."""
    with FakeEndpoint(
        lambda request: "yes" if request.prompt[-1] in "13579" else "no", model_id="m", latency=0.05
    ) as endpoint:
        yield endpoint


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a run in a process of its own; whatever is left at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(endpoint: FakeEndpoint, folder: Path, *more: str, **settings: Any) -> subprocess.Popen[str]:
        overrides = ",".join(f"config.params.{key}={value}" for key, value in settings.items())
        process = subprocess.Popen(
            [
                sys.executable, "-m", "nemo_evaluator", "run_eval", "--eval_type", "probe", "--model_id", "m",
                "--model_type", "chat", "--model_url", endpoint.chat_url, "--output_dir", str(folder),
                *(["--overrides", overrides] if overrides else []), *more,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_run_is_seen_from_another_process(endpoint: FakeEndpoint, tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "run"
    process = start(endpoint, folder, **{"extra.n": 60})

    seen = wait_for(lambda: (found := status(folder))["totals"]["answered"] > 2 and found)
    out, err = process.communicate(timeout=PATIENCE)
    last = status(folder)

    assert (seen["state"], seen["pid"], seen["code"]) == ("running", process.pid, 0)
    assert seen["task"] == "probe"
    assert seen["upstreams"]["model"]["tokens"]["total"] > 0
    assert seen["totals"]["rates"]["requests_per_second"] > 0
    assert seen["upstreams"]["model"]["latency_ms"]["p50"] >= 45
    assert process.returncode == 0, err
    assert (last["state"], last["exit_code"], last["code"]) == ("finished", 0, 0)
    # The first question is the preflight's, which does not pass through the proxy.
    assert last["totals"]["answered"] == last["totals"]["requests"] == 60
    assert "0.5" in out


def test_pause_holds_requests_and_resume_lets_them_go(endpoint: FakeEndpoint, tmp_path: Path, start: Start) -> None:
    process = start(endpoint, tmp_path / "run", **{"extra.n": 60, "parallelism": 4})
    wait_for(answers(endpoint, 10))

    assert main(["control", str(tmp_path / "run"), "pause"]) == 0
    wait_for(lambda: endpoint.stats["in_flight"] == 0)
    asked = endpoint.count
    paused = wait_for(lambda: (found := status(tmp_path / "run"))["totals"]["waiting"] == 4 and found)
    assert endpoint.count == asked
    assert paused["state"] == "paused"
    assert main(["control", str(tmp_path / "run"), "resume"]) == 0
    process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert endpoint.count == 61
    results = yaml.safe_load((tmp_path / "run" / "results.yml").read_text())
    assert results["results"]["tasks"]["probe"]["metrics"]["accuracy"]["scores"]["accuracy"]["value"] == 0.5


def test_pausing_works_without_the_interceptor_concurrency(
    endpoint: FakeEndpoint, tmp_path: Path, start: Start
) -> None:
    config = tmp_path / "run.yml"
    config.write_text("target: {api_endpoint: {adapter_config: {interceptors: [endpoint]}}}")
    start(endpoint, tmp_path / "run", "--run_config", str(config), **{"extra.n": 400, "parallelism": 4})
    wait_for(answers(endpoint, 10))

    assert main(["control", str(tmp_path / "run"), "pause"]) == 0
    wait_for(lambda: endpoint.stats["in_flight"] == 0)
    asked = endpoint.count
    wait_for(lambda: status(tmp_path / "run")["totals"]["waiting"] == 4)

    assert endpoint.count == asked


def test_a_limit_is_kept_until_it_is_taken_off(endpoint: FakeEndpoint, tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "run"
    start(endpoint, folder, **{"extra.n": 2000, "parallelism": 4})
    wait_for(lambda: endpoint.stats["in_flight"] == 4)

    assert main(["control", str(folder), "concurrency", "1"]) == 0
    wait_for(lambda: endpoint.stats["in_flight"] <= 1)
    endpoint.clear()
    wait_for(answers(endpoint, 8))
    assert endpoint.stats["max_in_flight"] == 1
    limited = {"limit": 1, "in_use": 1, "paused": False}
    wait_for(lambda: status(folder)["upstreams"]["model"]["concurrency"] == limited)
    assert main(["control", str(folder), "concurrency", "off"]) == 0
    wait_for(lambda: endpoint.stats["in_flight"] == 4)


def test_an_unknown_endpoint_cannot_be_limited(
    endpoint: FakeEndpoint, tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    start(endpoint, tmp_path / "run", **{"extra.n": 2000})
    wait_for(answers(endpoint, 3))

    assert main(["control", str(tmp_path / "run"), "concurrency", "1", "--upstream", "modle"]) == 1

    assert "there is no endpoint 'modle'. Did you mean 'model'?" in capfd.readouterr().err


def test_a_stopped_run_can_go_on(endpoint: FakeEndpoint, tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "run"
    first = start(endpoint, folder, **{"extra.n": 80})
    wait_for(answers(endpoint, 10))

    assert main(["control", str(folder), "stop"]) == 0
    _, err = first.communicate(timeout=PATIENCE)
    stopped = status(folder)
    second = start(endpoint, folder, **{"extra.n": 80})
    second.communicate(timeout=PATIENCE)

    assert first.returncode == 143
    assert "stopped by `nemo-evaluator control stop` of" in err
    assert "start the same command again to go on" in err
    assert (stopped["state"], stopped["exit_code"], stopped["code"]) == ("interrupted", 143, 1)
    assert "control stop" in stopped["reason"]
    assert second.returncode == 0
    assert status(folder)["state"] == "finished"


def test_a_pipe_in_its_folder_does_not_hold_up_a_run(endpoint: FakeEndpoint, tmp_path: Path, start: Start) -> None:
    folder = tmp_path / "run"
    process = start(endpoint, folder, **{"extra.n": 40})
    wait_for(answers(endpoint, 5))

    os.mkfifo(folder / "control.json")
    os.mkfifo(folder / "samples.jsonl")
    _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert "control.json is no command" in err
    assert status(folder)["state"] == "finished"


def test_a_stream_that_hangs_does_not_hold_up_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hangs, freed = threading.Event(), threading.Event()

    class Stuck:
        def update(self, _status: Mapping[str, Any]) -> None:
            if threading.current_thread() is not threading.main_thread():
                hangs.set()
                freed.wait()

    with Watch(tmp_path, stop=StopSignal(), about={}, observer=Stuck(), join_seconds=0.1):
        assert hangs.wait(PATIENCE)
    freed.set()

    assert "the end of the run cannot be told" in caplog.text


def requests_of(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capfd.readouterr()
    assert main(["requests", *arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capfd.readouterr().out)
    return found


def test_runs_that_share_a_store_tell_their_own_requests(
    endpoint: FakeEndpoint, tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yml"
    config.write_text("target: {api_endpoint: {adapter_config: {caching_dir: shared}}}")
    for name, count in (("first", 3), ("second", 5)):
        process = start(endpoint, tmp_path / name, "--run_config", str(config), **{"extra.n": count})
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err

    # This process has another working directory, so that the relative folder means nothing here.
    assert len(requests_of(capfd, str(tmp_path / "first"))) == 3
    assert len(requests_of(capfd, str(tmp_path / "second"))) == 2
    assert len(requests_of(capfd, str(tmp_path / "second"), "--all")) == 5
    report = json.loads((tmp_path / "second" / "report.json").read_text())
    assert report["requests"]["count"] == 2


def test_a_run_that_goes_on_with_another_store_tells_that_one(
    endpoint: FakeEndpoint, tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    first = start(endpoint, folder, **{"extra.n": 4})
    first.communicate(timeout=PATIENCE)
    config = tmp_path / "run.yml"
    config.write_text("target: {api_endpoint: {adapter_config: {caching_dir: elsewhere}}}")
    second = start(endpoint, folder, "--run_config", str(config), **{"extra.n": 4})
    _, err = second.communicate(timeout=PATIENCE)

    assert (first.returncode, second.returncode) == (0, 0), err
    assert status(folder)["store"]["path"] == str(tmp_path / "elsewhere" / "requests.db")
    assert len(requests_of(capfd, str(folder))) == 4
    assert len(requests_of(capfd, str(tmp_path / "elsewhere"))) == 4


def test_a_killed_run_is_shown_as_dead(
    endpoint: FakeEndpoint, tmp_path: Path, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    process = start(endpoint, folder, **{"extra.n": 2000})
    wait_for(lambda: status(folder)["state"] == "running")

    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    found = status(folder)
    assert (found["state"], found["code"]) == ("died", 1)
    assert main(["control", str(folder), "pause"]) == 2
    assert "no run is under way" in capfd.readouterr().err


def test_a_refused_request_stops_the_harness_at_once(tmp_path: Path, start: Start) -> None:
    config = tmp_path / "run.yml"
    config.write_text("target: {api_endpoint: {adapter_config: {use_raise_client_errors: true}}}")
    with FakeEndpoint("yes", model_id="m", faults=["401,at=5"]) as endpoint:
        process = start(endpoint, tmp_path / "run", "--run_config", str(config), **{"extra.n": 1_000_000})
        _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 3
    assert "answered 401, which raise_client_errors makes the end of the run" in err
    found = status(tmp_path / "run")
    assert (found["state"], found["exit_code"]) == ("failed", 3)
    assert found["upstreams"]["model"]["errors"]["http_401"] == 1


def test_a_used_up_budget_has_a_code_of_its_own(endpoint: FakeEndpoint, tmp_path: Path, start: Start) -> None:
    config = tmp_path / "run.yml"
    config.write_text("target: {api_endpoint: {adapter_config: {budget: {max_requests: 10}}}}")
    process = start(endpoint, tmp_path / "run", "--run_config", str(config), **{"extra.n": 1_000_000})
    _, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 8, err
    assert endpoint.count <= 11
    assert status(tmp_path / "run")["exit_code"] == 8


def test_samples_are_told_where_the_harness_plans_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setenv(env.HARNESS_PATH, str(ROOT / "harnesses"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in demonstration_rows(40)))
    settings = {"parallelism": 2, "extra.dataset": str(rows)}
    with FakeEndpoint(demonstration_answers(), model_id="m", latency=0.2) as endpoint:
        process = start(endpoint, tmp_path / "run", "--eval_type", "mmlu_pro", **settings)
        seen = wait_for(lambda: (found := status(tmp_path / "run")).get("samples", {}).get("done", 0) > 4 and found)
        assert main(["control", str(tmp_path / "run"), "stop"]) == 0
        process.communicate(timeout=PATIENCE)
        again = start(endpoint, tmp_path / "run", "--eval_type", "mmlu_pro", **settings)
        resumed = wait_for(
            lambda: (found := status(tmp_path / "run"))["state"] == "running" and found["totals"]["answered"] and found
        )
        _, err = again.communicate(timeout=PATIENCE)

    assert seen["samples"]["planned"] == resumed["samples"]["planned"] == 40
    assert 4 < seen["samples"]["done"] < 40
    assert seen["samples"]["percent"] == 2.5 * seen["samples"]["done"]
    assert seen["samples"]["eta_seconds"] is None or seen["samples"]["eta_seconds"] > 0
    assert "accuracy" in seen["samples"]["mean_scores"]
    # What the first start had scored still counts, although it is not asked again.
    assert resumed["samples"]["done"] >= seen["samples"]["done"] + resumed["totals"]["answered"] - 2
    assert again.returncode == 0, err
    with FakeEndpoint(demonstration_answers(), model_id="m") as endpoint:
        # Nothing is left to be asked, so that nobody says what was planned.
        start(endpoint, tmp_path / "run", "--eval_type", "mmlu_pro", **settings).communicate(timeout=PATIENCE)
    last = status(tmp_path / "run")
    assert last["samples"] | {"per_second": 0, "mean_scores": 0} == {
        "done": 40, "failed": 0, "planned": 40, "percent": 100.0, "per_second": 0, "eta_seconds": 0.0,
        "mean_scores": 0,
    }  # fmt: skip


def test_metrics_are_served_where_they_are_asked_for(endpoint: FakeEndpoint, tmp_path: Path, start: Start) -> None:
    config = tmp_path / "run.yml"
    config.write_text("target: {api_endpoint: {adapter_config: {metrics_port: 0}}}")
    start(endpoint, tmp_path / "run", "--run_config", str(config), **{"extra.n": 2000})
    seen = wait_for(lambda: (found := status(tmp_path / "run"))["totals"]["answered"] > 2 and found)

    with urllib.request.urlopen(seen["metrics_url"], timeout=PATIENCE) as response:
        text = response.read().decode()

    families = {family.name: family for family in text_string_to_metric_families(text)}
    (answered,) = families["nemo_evaluator_requests"].samples
    assert answered.labels == {"upstream": "model", "status": "200"}
    assert answered.value >= 3
    assert families["nemo_evaluator_in_flight"].samples[0].value in (0, 1)


def test_nothing_secret_is_told(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-topsecret-0123456789")
    with FakeEndpoint("yes", model_id="m", require_key="sk-topsecret-0123456789") as endpoint:
        process = start(endpoint, tmp_path / "run", "--api_key_name", "MY_KEY")
        process.communicate(timeout=PATIENCE)

    text = (tmp_path / "run" / "status.json").read_text()
    assert "topsecret" not in text
    assert endpoint.url not in text


def test_progress_is_told_in_plain_lines(
    endpoint: FakeEndpoint, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(env.PROGRESS_SECONDS, "0.5")
    process = start(endpoint, tmp_path / "run", **{"extra.n": 80})
    out, err = process.communicate(timeout=PATIENCE)

    told = [line for line in err.splitlines() if line.startswith("Progress: ")]
    assert len(told) >= 3
    assert any(" requests, " in line for line in told)
    assert "\x1b" not in out + err
    assert "Progress" not in out


def test_quiet_runs_tell_nothing(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "nemo_evaluator", "--quiet", "run_eval", "--eval_type", "probe", "--model_id", "m",
            "--model_type", "chat", "--model_url", endpoint.chat_url, "--output_dir", str(tmp_path / "run"),
        ],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.stderr == ""
