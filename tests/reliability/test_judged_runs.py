"""A published harness whose answers a judge marks: both ways lead through the proxy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.reliability.conftest import PREFLIGHT_REQUESTS, Case, Questions

from nemo_evaluator.testing import FakeEndpoint, FakeHub, ModelRequest

COUNT = 9
RIGHT = 6


@pytest.fixture
def judged(published_environment: Callable[[str], Any], tmp_path: Path) -> Iterator[Case]:
    """SimpleQA of the published simple-evals wheel."""
    environment = published_environment("nvidia-simple-evals")
    rows = [
        {"metadata": "{}", "problem": f"What is {number}?", "answer": f"It is {number}."} for number in range(COUNT)
    ]
    with FakeHub() as hub:
        hub.add_dataset("basicv8vc/SimpleQA", {"data/test.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})
        programs = environment.root / "bin"
        yield Case(
            name="simpleqa",
            questions=Questions(0),
            command=[str(programs / "nemo-evaluator"), "run_eval", "--eval_type", "simpleqa"],
            variables={"PATH": f"{programs}:{os.environ['PATH']}", **hub.environment(tmp_path / "hub")},
            overrides=("config.params.extra.judge.model_id=judge",),
        )


def mark(request: ModelRequest) -> str:
    """What the judge says: the first answers are right."""
    number = int(request.prompt.rpartition("Question: What is ")[2].partition("?")[0])
    return "A" if number < RIGHT else "B"


def test_model_and_judge_are_counted_apart_and_asked_once(judged: Case, tmp_path: Path) -> None:
    output_dir = tmp_path / "out"
    with (
        FakeEndpoint("It is a number.", model_id="m", faults=["500,at=5"]) as model,
        FakeEndpoint(mark, model_id="judge", require_key="judge-key", faults=["503,at=3"]) as judge,
    ):
        variables = {"JUDGE_KEY": "judge-key"}
        case = judged.having(
            f"config.params.extra.judge.url={judge.base_url}",
            "config.params.extra.judge.api_key=JUDGE_KEY",
            **variables,
        )
        assert case.finish(model.chat_url, output_dir) == 0, case.log(output_dir)
        covered = case.coverage(output_dir)
        asked = (model.count, judge.count)
        results = yaml.safe_load((output_dir / "results.yml").read_text())["results"]

        assert case.finish(model.chat_url, output_dir) == 0, case.log(output_dir)

        again = case.coverage(output_dir)
        assert model.count - asked[0] <= PREFLIGHT_REQUESTS
        assert judge.count == asked[1]
    counted, marked = covered["requests"], covered["upstreams"]["judge"]
    assert (counted["sent"], counted["answered"]) == (COUNT, COUNT)
    assert (marked["sent"], marked["answered"], marked["exchanges"], marked["retried"]) == (COUNT, COUNT, COUNT + 1, 1)
    assert marked["exchanges"] == asked[1]
    assert f"value: {RIGHT / COUNT}" in yaml.safe_dump(results)
    assert yaml.safe_load((output_dir / "results.yml").read_text())["results"] == results
    assert again["requests"]["exchanges"] == again["upstreams"]["judge"]["exchanges"] == 0
