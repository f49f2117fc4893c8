from __future__ import annotations

from pathlib import Path

import pytest
from tests.reliability.conftest import Case

from nemo_evaluator.testing import FakeEndpoint

BREAKS = """
from nemo_evaluator.adapters import register_for_adapter

@register_for_adapter(name="breaks", description="Fails at every seventh question.")
class Breaks:
    def __init__(self, params, context):
        pass

    async def __call__(self, request, call_next):
        body = request.json()
        number = body["messages"][-1]["content"].partition("Which is letter ")[2][:4]
        if number and int(number) % 7 == 0:
            raise RuntimeError("no luck with seven")
        request.replace_json({**body, "user": "changed"})
        return await call_next(request)
"""


def test_what_an_interceptor_fails_on_is_never_sent_and_never_scored(ours: Case, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "breaks.py").write_text(BREAKS)
    adapter = "target.api_endpoint.adapter_config"
    case = ours.having(
        f"{adapter}.interceptors=[breaks, caching, retry, concurrency]",
        f"{adapter}.discovery.dirs=['{folder}']",
        "config.params.extra.max_failed_fraction=0.3",
        "config.params.max_retries=0",
    )
    output_dir = tmp_path / "out"

    with FakeEndpoint(case.questions.answer, model_id="m") as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        asked = [request for request in endpoint.requests if b"Which is letter" in request.raw]

    kept = [number for number in range(case.questions.count) if number % 7]
    assert len(asked) == len(kept)
    assert {request.body["user"] for request in asked} == {"changed"}
    covered = case.coverage(output_dir)
    assert (covered["scored"], covered["failed"]) == (len(kept), case.questions.count - len(kept))
    assert covered["requests"]["interceptor_failures"] == covered["failed"]
    assert case.score(output_dir) == pytest.approx(sum(number % 3 != 0 for number in kept) / len(kept))
    assert "breaks" in (output_dir / "samples.jsonl").read_text()
