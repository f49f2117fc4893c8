"""A finished run is scored again from its store, with no endpoint there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from tests.reliability.conftest import PREFLIGHT_REQUESTS, Case

from nemo_evaluator.testing import FakeEndpoint

KEPT = ("cache", "run_config.yml", "results.yml")
ASKED = 20


def results_of(output_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((output_dir / "results.yml").read_text())["results"]
    return found


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 12) if isinstance(value, float) else value


def test_a_replay_scores_the_same_and_names_what_it_misses(case: Case, tmp_path: Path) -> None:
    output_dir, first = tmp_path / "out", case.asking(ASKED)
    with FakeEndpoint(case.questions.answer, model_id="m") as endpoint:
        assert first.finish(endpoint.chat_url, output_dir) == 0, first.log(output_dir)
        assert endpoint.count <= ASKED + PREFLIGHT_REQUESTS
        url = endpoint.chat_url
    results, score = results_of(output_dir), first.score(output_dir)
    # Harnesses keep answers too: without those, they are the store's.
    for path in output_dir.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    assert first.finish(url, output_dir, "--replay") == 0, first.log(output_dir)

    assert first.score(output_dir) == score
    # A harness that adds up in the order of its answers may differ in the last bit of a deviation.
    assert rounded(results_of(output_dir)) == rounded(results)
    assert first.coverage(output_dir)["requests"]["cached"] == ASKED
    assert first.coverage(output_dir)["requests"]["exchanges"] == 0
    # More questions than were ever asked.
    assert case.asking(ASKED + 5).finish(url, output_dir, "--replay") == 7, case.log(output_dir)
    assert rounded(results_of(output_dir)) == rounded(results)
    said = case.log(output_dir)
    assert "has no answer that is not given yet to POST" in said
    assert "Traceback" not in said.rpartition("replay:")[2]
