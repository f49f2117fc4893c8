"""No room for what is to be stored: the run goes on or ends tidily, and what is on disk can be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.compat.conftest import bare_environment
from tests.reliability.conftest import PARALLELISM, PREFLIGHT_REQUESTS, RUN_SECONDS, Case

from nemo_evaluator.testing import Answer, FakeEndpoint, ModelRequest

COUNT = 80
ANSWER_BYTES = 20_000
KIBIBYTES = 700
"""No file may become larger: what is asked at once fits, and not much more."""


def stored(folder: Path) -> int:
    """How many usable answers the store has, as its reader sees it."""
    done = subprocess.run(
        [sys.executable, "-m", "nemo_evaluator", "requests", str(folder), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sum(bool(record["is_usable"]) for record in json.loads(done.stdout))


@pytest.mark.parametrize("name", ["ours", "probe"])
def test_files_that_cannot_grow_lose_no_score(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    case: Case = request.getfixturevalue(name)
    case = case.asking(COUNT) if name == "ours" else case.having(f"config.params.extra.n={COUNT}")
    output_dir, filler = tmp_path / "out", os.urandom(ANSWER_BYTES // 2).hex()

    def answer(request: ModelRequest) -> Answer:
        return Answer(
            case.questions.answer(request) if name == "ours" else "yes", reasoning=f"{request.prompt[-4:]} {filler}"
        )

    with FakeEndpoint(answer, model_id="m") as endpoint:
        with (tmp_path / "limited.log").open("wb") as log:
            limited = [
                "bash",
                "-c",
                f'ulimit -f {KIBIBYTES}; exec "$@"',
                "bash",
                *case.words(endpoint.chat_url, output_dir),
            ]
            code = subprocess.run(
                limited,
                env={**bare_environment(), **case.variables}, stdout=log, stderr=log, timeout=RUN_SECONDS, check=False,
            ).returncode  # fmt: skip
        said = (tmp_path / "limited.log").read_text()
        assert "Traceback" not in said
        has_results = (output_dir / "results.yml").exists()
        assert has_results == (code == 0), said
        kept = stored(output_dir)
        assert 0 < kept < COUNT
        if has_results:
            counted = case.coverage(output_dir)["requests"]
            assert counted["not_stored"] == COUNT - kept
            assert counted["answered"] == COUNT
        asked = endpoint.count

        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)

        assert endpoint.count - asked <= COUNT - kept + PARALLELISM + PREFLIGHT_REQUESTS
    assert case.score(output_dir) == pytest.approx(case.questions.score if name == "ours" else 1.0)
