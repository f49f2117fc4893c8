"""Whole runs as processes: one harness of ours and one published wheel, both unchanged, behind the proxy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.compat.conftest import bare_environment
from tests.compat.conftest import published_environment as published_environment  # noqa: PLC0414  a fixture, shared

from nemo_evaluator.testing import FakeHub, ModelRequest

ROOT = Path(__file__).resolve().parents[2]
LETTERS = "ABCDEFGHIJ"
ROUNDS = int(os.environ.get("SOAK_ROUNDS", "0"))
"""How often `make soak` repeats what has an element of chance; 0 in the quick suite."""
RUN_SECONDS = 900.0 if ROUNDS else 120.0
PARALLELISM = 8
PREFLIGHT_REQUESTS = 3
"""Most that one start asks before the harness does."""

_PROBE = f"""
framework: {{name: probe, pkg_name: probe}}
defaults:
  command: >-
    {{% if target.api_endpoint.api_key_name %}}API_KEY=${{{{target.api_endpoint.api_key_name}}}}{{% endif %}}
    {sys.executable} {ROOT / "tests" / "core" / "probe_harness.py"}
    --url {{{{target.api_endpoint.url}}}} --model {{{{target.api_endpoint.model_id}}}} --out {{{{config.output_dir}}}}
    --n {{{{config.params.extra.n}}}} --parallel {{{{config.params.parallelism}}}}
  config: {{params: {{parallelism: 8, extra: {{n: 40}}}}}}
  target: {{api_endpoint: {{}}}}
evaluations:
  - defaults: {{config: {{type: probe, supported_endpoint_types: [chat]}}}}
"""
_PROBE_PARSER = """
import json
from pathlib import Path
from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, ScoreStats, TaskResult

def parse_output(output_dir):
    value = float(json.loads((Path(output_dir) / "probe.json").read_text())["value"])
    metrics = {"accuracy": MetricResult(scores={"accuracy": Score(value=value, stats=ScoreStats(count=1))})}
    return EvaluationResult(tasks={"probe": TaskResult(metrics=metrics)})
"""


@dataclass(frozen=True)
class Questions:
    """Made-up questions with ten options, and an endpoint's answers to them: every third is wrong."""

    count: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number in range(self.count):
            self.rows.append(
                {
                    "question_id": number,
                    "question": f"Which is letter {number:04d} of the list?",
                    "options": [f"option {letter} of {number}" for letter in LETTERS],
                    "answer": LETTERS[number % 10],
                    "answer_index": number % 10,
                    "cot_content": "",
                    "category": "letters",
                    "src": "made",
                }
            )

    @property
    def lines(self) -> str:
        """The rows as JSONL."""
        return "".join(json.dumps(row) + "\n" for row in self.rows)

    @property
    def score(self) -> float:
        """What the answers imply."""
        return sum(number % 3 != 0 for number in range(self.count)) / self.count

    def answer(self, request: ModelRequest) -> str:
        """The answer to one request."""
        _, found, rest = request.prompt.partition("Which is letter ")
        if not found:
            return "ok"
        number = int(rest[:4])
        letter = LETTERS[(number + (number % 3 == 0)) % 10]
        return f"Let me think about it.\nAnswer: {letter}"


@dataclass(frozen=True)
class Case:
    """One harness with its data; `start` begins a run of it in a folder."""

    name: str
    questions: Questions
    command: list[str]
    variables: Mapping[str, str]
    overrides: tuple[str, ...] = ()

    def having(self, *overrides: str, **variables: str) -> Case:
        """The same with further settings and environment variables."""
        return replace(self, overrides=(*self.overrides, *overrides), variables={**self.variables, **variables})

    def asking(self, count: int) -> Case:
        """The same with the first `count` questions."""
        return replace(self.having(f"config.params.limit_samples={count}"), questions=Questions(count))

    def words(self, url: str, output_dir: Path, *more: str) -> list[str]:
        """The command line of a run against the endpoint at `url`."""
        endpoint = ["--model_id", "m", "--model_type", "chat", "--model_url", url, "--output_dir", str(output_dir)]
        overrides = ["--overrides", ",".join(self.overrides)] if self.overrides else []
        return [*self.command, *endpoint, *overrides, *more]

    def start(self, url: str, output_dir: Path, *more: str) -> subprocess.Popen[bytes]:
        """A process of its own group that runs the harness against the endpoint at `url`."""
        with (output_dir.parent / f"{output_dir.name}.log").open("ab") as log:
            return subprocess.Popen(
                self.words(url, output_dir, *more),
                env={**bare_environment(), **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, url: str, output_dir: Path, *more: str) -> int:
        """Run it to its end; the exit code."""
        process = self.start(url, output_dir, *more)
        try:
            return process.wait(RUN_SECONDS)
        finally:
            kill_all(tree(process.pid))

    def log(self, output_dir: Path) -> str:
        """What the runs in this folder printed."""
        return (output_dir.parent / f"{output_dir.name}.log").read_text(errors="replace")

    def score(self, output_dir: Path) -> float:
        """The one score of a finished run."""
        results = yaml.safe_load((output_dir / "results.yml").read_text())["results"]
        if self.name == "mmlu_pro":
            return float(results["tasks"]["mmlu_pro"]["metrics"]["accuracy"]["scores"]["accuracy"]["value"])
        if self.name == "probe":
            return float(results["tasks"]["probe"]["metrics"]["accuracy"]["scores"]["accuracy"]["value"])
        (group,) = (found for name, found in results["groups"].items() if name == "mmlu_pro")
        return float(group["metrics"]["score"]["scores"]["micro"]["value"])

    def coverage(self, output_dir: Path) -> dict[str, Any]:
        """What a finished run says of its samples and requests."""
        covered: dict[str, Any] = yaml.safe_load((output_dir / "results.yml").read_text())["coverage"]
        return covered


def tree(pid: int) -> list[psutil.Process]:
    """The process `pid` and all below it, while they live."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_all(processes: list[psutil.Process]) -> None:
    """End `processes` with SIGKILL."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


@pytest.fixture
def ours(tmp_path: Path) -> Case:
    """MMLU-Pro on the native engine."""
    questions = Questions(90)
    file = tmp_path / "questions.jsonl"
    file.write_text(questions.lines)
    return Case(
        name="mmlu_pro",
        questions=questions,
        command=[sys.executable, "-m", "nemo_evaluator", "run_eval", "--eval_type", "mmlu_pro"],
        variables={"NEMO_EVALUATOR_HARNESS_PATH": str(ROOT / "harnesses"), "PATH": os.environ["PATH"]},
        overrides=(
            f"config.params.extra.dataset={json.dumps(str(file))}",
            f"config.params.parallelism={PARALLELISM}",
        ),
    )


@pytest.fixture
def probe(tmp_path: Path) -> Case:
    """A harness of a few lines, which starts quickly; it counts the answers `yes`."""
    folder = tmp_path / "harnesses" / "probe"
    folder.mkdir(parents=True)
    (folder / "framework.yml").write_text(_PROBE)
    (folder / "output.py").write_text(_PROBE_PARSER)
    return Case(
        name="probe",
        questions=Questions(0),
        command=[sys.executable, "-m", "nemo_evaluator", "run_eval", "--eval_type", "probe"],
        variables={"NEMO_EVALUATOR_HARNESS_PATH": str(folder.parent), "PATH": os.environ["PATH"]},
    )


@pytest.fixture
def published(published_environment: Callable[[str], Any], tmp_path: Path) -> Iterator[Case]:
    """MMLU-Pro of the published simple-evals wheel, its data from a stand-in of the hub."""
    questions = Questions(40)
    environment = published_environment("nvidia-simple-evals")
    with ExitStack() as stack:
        hub = stack.enter_context(FakeHub())
        hub.add_dataset("TIGER-Lab/MMLU-Pro", {"data/test.jsonl": questions.lines})
        yield Case(
            name="simple_evals",
            questions=questions,
            command=[str(environment.root / "bin" / "nemo-evaluator"), "run_eval", "--eval_type", "mmlu_pro_aa_v3"],
            variables={
                "PATH": f"{environment.root / 'bin'}:{os.environ['PATH']}",
                **hub.environment(tmp_path / "hub"),
            },
            overrides=(f"config.params.parallelism={PARALLELISM}",),
        )


@pytest.fixture(params=["ours", "published"])
def case(request: pytest.FixtureRequest) -> Case:
    """Each of the two in turn."""
    found: Case = request.getfixturevalue(request.param)
    return found


def wait_for(what: Callable[[], Any], seconds: float = RUN_SECONDS) -> None:
    """Wait until `what` is true.

    Raises:
        AssertionError: it has not come true in time.
    """
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain"
        time.sleep(0.01)
