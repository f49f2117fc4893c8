from __future__ import annotations

from pathlib import Path

import pytest
from tests.reliability.conftest import Case

from nemo_evaluator.testing import FakeEndpoint

ATTEMPTS = 3
"""Most exchanges for one request by default."""
LOST = 7


def test_repetitions_of_proxy_and_harness_do_not_multiply(ours: Case, tmp_path: Path) -> None:
    output_dir, questions = tmp_path / "out", ours.questions
    faults = [f"500,match={LOST:04d} of the list"]

    with FakeEndpoint(questions.answer, model_id="m", faults=faults) as endpoint:
        assert ours.finish(endpoint.chat_url, output_dir) == 0, ours.log(output_dir)
        asked = [request for request in endpoint.requests if f"{LOST:04d} of the list" in str(request.body)]

    assert len(asked) == ATTEMPTS
    others = [number for number in range(questions.count) if number != LOST]
    assert ours.score(output_dir) == pytest.approx(sum(number % 3 != 0 for number in others) / len(others))
