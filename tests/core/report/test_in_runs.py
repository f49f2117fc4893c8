from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest

from nemo_evaluator.cli.main import main
from nemo_evaluator.testing import FakeEndpoint

DEFINITION = """
framework: {name: once, pkg_name: once}
defaults:
  command: "true"
  target: {api_endpoint: {}}
evaluations:
  - name: once
    defaults: {config: {type: once, supported_endpoint_types: [chat]}}
"""
PARSER = """
from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, ScoreStats, TaskResult

def parse_output(output_dir):
    score = Score(value=0.5, stats=ScoreStats())
    return EvaluationResult(tasks={"once": TaskResult(metrics={"m": MetricResult(scores={"m": score})})})
"""


@pytest.fixture
def run(add_harness: Callable[..., Path]) -> Callable[[Path], int]:
    """Runs the task once and returns the exit code."""
    (add_harness("once", DEFINITION).parent / "output.py").write_text(PARSER)

    def start(output_dir: Path) -> int:
        with FakeEndpoint("yes", model_id="m") as endpoint:
            arguments = ["--eval_type", "once", "--model_id", "m", "--model_type", "chat"]
            return main(["run_eval", *arguments, "--model_url", endpoint.chat_url, "--output_dir", str(output_dir)])

    return start


def test_a_run_leaves_a_report_and_names_it(
    run: Callable[[Path], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out") == 0

    assert f"Report:  {tmp_path / 'out' / 'report.html'}" in capsys.readouterr().out
    assert "0.5000" in (tmp_path / "out" / "report.html").read_text()


def test_a_report_that_cannot_be_written_costs_a_note_and_no_result(
    run: Callable[[Path], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "out" / "report.html" / "x"
    in_the_way.mkdir(parents=True)

    assert run(tmp_path / "out") == 0

    assert "the report could not be written" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.yml").is_file()


def test_a_report_that_fails_in_any_way_costs_a_note_and_no_result(
    run: Callable[[Path], int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    render = jinja2.Template.render

    def broken(template: jinja2.Template, *more: Any, **values: Any) -> str:
        if "report" in values:
            raise RecursionError("too deep")
        return render(template, *more, **values)

    # Nothing that a run can leave is known to do this: what is not known yet must not cost the results either.
    monkeypatch.setattr(jinja2.Template, "render", broken)

    assert run(tmp_path / "out") == 0

    assert "the report could not be written: RecursionError: too deep" in capsys.readouterr().err
    assert (tmp_path / "out" / "results.yml").is_file()
    assert json.loads((tmp_path / "out" / "status.json").read_text())["state"] == "finished"
