from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.compat.conftest import PublishedEnvironment

from nemo_evaluator.testing import FakeEndpoint, ModelRequest

HARNESSES = Path(__file__).parents[2]
MODEL = "org/my model; $(touch HACKED)"
STEPS = {
    "wrap": ("return np.asarray(r) % L", [[0.5, 3.8, 0.3]], [[0.0, 5.5, 9.9]], [[3.7, 7.9, 4.3]]),
    "dist": ("return 2.0", 2.0, 2.0, 2.0),
    "dist_v": ("return 3.0", 3.0, 3.0, 3.0),
    "E_ij": ("return 4.0", 4.0, 4.0, 4.0),
    "f_ij": ("return 5.0", 5.0, 5.0, 5.0),
    "E_tail": ("return 6.0", 6.0, 6.0, 6.0),
    "P_tail": ("return 7.0", 7.0, 7.0, 7.0),
    "E_pot": ("return 8.0", 8.0, 8.0, 8.0),
    "temperature": ("return 9.0", 9.0, 9.0, 9.0),
    "pressure": ("return 0.0, 1.0, 2.0", *[[0.0, 1.0, 2.0]] * 3),
    "forces": ("return 11.0", 11.0, 11.0, 11.0),
    "velocityVerlet": ("return xyz, v_xyz, L", False),
}
"""The steps of the first problem, 77: a body of the function, and the targets that this body meets."""

Evaluate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def targets(write_targets: Callable[[Path, dict[str, Any]], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = {f"77.{number}": [*step[1:]] for number, step in enumerate(STEPS.values(), start=1)}
    return write_targets(tmp_path_factory.mktemp("targets") / "targets of a test.h5", values)


@pytest.fixture(scope="module")
def evaluate(environment: PublishedEnvironment, targets: Path) -> Evaluate:
    """Evaluates the first problem with our definition."""

    def run(endpoint: FakeEndpoint, out: Path, *overrides: str, model: str = "m") -> subprocess.CompletedProcess[str]:
        settings = ["config.params.limit_samples=1", f"config.params.extra.test_data='{targets}'", *overrides]
        return environment.evaluate(
            *("--eval_type", "scicode", "--output_dir", out, "--api_key_name", "THE_KEY"),
            *("--model_id", model, "--model_type", "chat", "--model_url", endpoint.chat_url),
            *("--overrides", ",".join(settings)),
            NEMO_EVALUATOR_HARNESS_PATH=str(HARNESSES),
            THE_KEY="key-of-the-endpoint",
        )

    return run


@pytest.fixture(scope="module")
def finished(evaluate: Evaluate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run with right answers to everything."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with FakeEndpoint(right_answer, require_key="key-of-the-endpoint") as endpoint:
        done = evaluate(endpoint, out, model=MODEL)
    assert done.returncode == 0, done.stderr
    return out


def asked_function(request: ModelRequest) -> str | None:
    """The function that a request asks for; None for the request that only tries the endpoint."""
    head = request.prompt.partition("NEXT STEP")[2]
    return next((name for name in reversed(STEPS) if f"def {name}(" in head), None)


def right_answer(request: ModelRequest) -> str:
    name = asked_function(request)
    if name is None:
        return "ok"
    arguments = {"wrap": "r, L", "velocityVerlet": "N, xyz, v_xyz, L, *rest"}.get(name, "*arguments")
    return f"Like this:\n```python\nimport numpy\ndef {name}({arguments}):\n    {STEPS[name][0]}\n```\n"


def scores_of(folder: Path) -> dict[str, float]:
    metrics = yaml.safe_load((folder / "results.yml").read_text())["results"]["tasks"]["scicode"]["metrics"]
    return {name: metric["scores"][name]["value"] for name, metric in metrics.items()}


def coverage_of(folder: Path) -> dict[str, int]:
    covered = yaml.safe_load((folder / "results.yml").read_text())["coverage"]
    return {name: count for name, count in covered.items() if name != "requests"}


def test_right_code_scores_one(finished: Path) -> None:
    assert scores_of(finished) == dict.fromkeys(
        ("steps_pass@1", "problems_pass@1", "steps_pass@1_corrected", "problems_pass@1_corrected"), 1.0
    )
    assert coverage_of(finished) == {"planned": 12, "scored": 12, "failed": 0, "empty": 0, "unparsed": 0}
    (package,) = (finished / "scicode_results").glob("*.json")
    assert json.loads(package.read_text())["steps_pass@1"] == 1.0


def test_every_answer_has_a_record(finished: Path, targets: Path) -> None:
    records = [json.loads(line) for line in (finished / "samples.jsonl").read_text().splitlines()]

    assert [record["id"] for record in records] == [f"77.{number}" for number in range(1, 13)]
    assert records[1]["response"].strip() == "def dist(*arguments):\n    return 2.0"
    data = yaml.safe_load((finished / "results.yml").read_text())["provenance"]["data"]
    assert data["test_data.h5"] == {"sha256": hashlib.sha256(targets.read_bytes()).hexdigest(), "compared": False}


def test_no_key_is_written(finished: Path) -> None:
    files = [file for file in finished.rglob("*") if file.is_file()]

    assert len(files) > 30
    assert not [file for file in files if b"key-of-the-endpoint" in file.read_bytes()]


def test_a_finished_run_is_not_asked_again(evaluate: Evaluate, finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    with FakeEndpoint("ok") as endpoint:
        done = evaluate(endpoint, out, model=MODEL)

    assert done.returncode == 0, done.stderr
    assert scores_of(out) == scores_of(finished)
    assert not [request for request in endpoint.requests if "NEXT STEP" in str(request.body)]


def test_other_settings_are_not_mixed_in(evaluate: Evaluate, finished: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    with FakeEndpoint("ok") as endpoint:
        by_run_eval = evaluate(endpoint, out, "config.params.temperature=0.5", model=MODEL)
        (out / "run_config.yml").unlink()
        by_the_harness = evaluate(endpoint, out, "config.params.temperature=0.5", model=MODEL)

    assert by_run_eval.returncode == 2
    assert "config.params.temperature was 0.0 and is 0.5" in by_run_eval.stderr
    assert by_the_harness.returncode == 4
    assert "holds the answers of another run" in by_the_harness.stderr
    assert not [request for request in endpoint.requests if "NEXT STEP" in str(request.body)]


def test_a_failed_request_is_no_zero_and_is_asked_again(evaluate: Evaluate, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with FakeEndpoint("I do not know.", faults=["html,at=5+6+7"]) as endpoint:
        ended_early = evaluate(endpoint, out)

    assert ended_early.returncode == 4
    assert "8 of 12 answers could not be had, more than the share of 0.1" in ended_early.stderr
    assert not (out / "results.yml").exists()

    # Request 0 tries the endpoint, request n asks for step n, and the proxy asks three times, the harness twice.
    with FakeEndpoint("I do not know.", faults=["500,at=3+4+5+6+7+8"]) as endpoint:
        again = evaluate(endpoint, out)

    assert again.returncode == 0, again.stderr
    assert coverage_of(out) == {"planned": 12, "scored": 11, "failed": 1, "empty": 0, "unparsed": 11}
    metrics = yaml.safe_load((out / "results.yml").read_text())["results"]["tasks"]["scicode"]["metrics"]
    steps = metrics["steps_pass@1"]["scores"]["steps_pass@1"]
    assert (steps["value"], steps["stats"]["count"]) == (0.0, 11)
    assert "problems_pass@1" not in metrics


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("config.params.extra.test_data=/nonexistent", "numeric targets are not at /nonexistent"),
        ("config.params.limit_samples=2", "lacks the targets of"),
        ("config.params.limit_samples=0.5", "config.params.limit_samples: 0.5 is not a whole number"),
        ("config.params.extra.test_data_sha256=12", "'12' is not 64 hexadecimal digits"),
        (f"config.params.extra.test_data_sha256='{'0' * 64}'", f"not {'0' * 64}: it is damaged, or another file"),
        ("config.params.extra.test_data_url='https://localhost/x'", "is not 64 hexadecimal digits"),
        ("target.api_endpoint.model_id=litellm/gpt", "begin with litellm/"),
        ("target.api_endpoint.model_id='a/..'", "cannot be one of at most 200 bytes"),
    ],
)
def test_what_cannot_work_is_refused_before_a_problem_is_asked(
    evaluate: Evaluate, tmp_path: Path, override: str, words: str
) -> None:
    with FakeEndpoint("I do not know.") as endpoint:
        done = evaluate(endpoint, tmp_path / "out", override)

    assert done.returncode == 7
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert endpoint.count <= 1


@pytest.fixture
def served(targets: Path) -> Iterator[tuple[str, list[str]]]:
    """The URL of a server that has the targets, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = targets.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/test_data.h5", asked
        server.shutdown()


def test_targets_are_downloaded_once_and_only_the_right_ones(
    harness: Any, served: tuple[str, list[str]], targets: Path, tmp_path: Path
) -> None:
    url, asked = served
    sha256 = hashlib.sha256(targets.read_bytes()).hexdigest()

    for _ in range(2):
        file = harness.targets.download(url, sha256=sha256.upper(), cache=tmp_path)

    assert file.read_bytes() == targets.read_bytes()
    assert len(asked) == 1
    with pytest.raises(harness.targets.DataError, match="damaged, or another file"):
        harness.targets.download(url, sha256="0" * 64, cache=tmp_path)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [file]
    with pytest.raises(harness.targets.MisconfigurationError, match="needs test_data_sha256"):
        harness.targets.download(url, sha256=None, cache=tmp_path)


def test_the_known_answers_get_their_verdicts(environment: PublishedEnvironment) -> None:
    done = environment.evaluate(
        "--self_test", "--eval_type", "scicode_background", NEMO_EVALUATOR_HARNESS_PATH=str(HARNESSES)
    )

    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok     step") == 19
    assert "WRONG" not in done.stdout
