"""Whatever is killed, whenever: the next start goes on, asks again no more than was in flight, and ends with one score.

`make soak` runs many more rounds than CI does (SOAK_ROUNDS).
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tests.reliability.conftest import PARALLELISM, PREFLIGHT_REQUESTS, ROUNDS, Case, kill_all, tree

from nemo_evaluator.testing import FakeEndpoint

LATENCY = 0.05


def _harness(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What the supervisor started."""
    return tree(process.pid)[1:]


def _supervisor(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return tree(process.pid)[:1]


def _everything(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return tree(process.pid)


@pytest.mark.parametrize("victims", [_harness, _supervisor, _everything], ids=["harness", "supervisor", "everything"])
@pytest.mark.parametrize("round_number", range(ROUNDS or 1))
def test_a_killed_run_goes_on_where_it_was(
    case: Case,
    tmp_path: Path,
    victims: Callable[[subprocess.Popen[bytes]], list[psutil.Process]],
    round_number: int,
) -> None:
    chance = random.Random(f"{case.name} {victims.__name__} {round_number}")
    output_dir = tmp_path / "out"
    # The published harness takes seconds to start.
    kills = 3 if ROUNDS else 2 if case.name == "mmlu_pro" else 1
    with FakeEndpoint(case.questions.answer, model_id="m", latency=LATENCY) as endpoint:
        for _ in range(kills):
            process = case.start(endpoint.chat_url, output_dir)
            before = endpoint.count
            # As soon as answers flow, at a random moment: a kill during the start shows nothing.
            while process.poll() is None and endpoint.count - before < PREFLIGHT_REQUESTS + chance.randint(1, 12):
                time.sleep(0.005)
            found = tree(process.pid)
            kill_all(victims(process))
            process.wait(30)
            _, alive = psutil.wait_procs(found, timeout=15)
            assert not alive, "the kill left processes behind"
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        asked = sum(b"Which is letter" in request.raw for request in endpoint.requests)
    assert case.score(output_dir) == pytest.approx(case.questions.score)
    again = asked - case.questions.count
    sys.stdout.write(f"{case.name}: {kills} kills, {again} of {case.questions.count} requests sent again\n")
    assert 0 <= again <= kills * PARALLELISM, case.log(output_dir)
