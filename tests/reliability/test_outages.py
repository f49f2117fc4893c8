"""Endpoints that go away in the middle of a run, for a while or for good."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.core.conftest import Request, Response, Script, ScriptedServer
from tests.core.conftest import serve as serve  # noqa: PLC0414  a fixture, shared
from tests.reliability.conftest import PARALLELISM, PREFLIGHT_REQUESTS, ROUNDS, Case, wait_for

from nemo_evaluator.testing import FakeEndpoint, ModelRequest

AWAY_SECONDS = 30.0 if ROUNDS else 2.5
LATENCY = 0.05
MOST_PROBES_A_SECOND = 2
_BY_CHANCE = 4
"""Probes whose moments are drawn at random may come this much more often in a short time."""


def test_an_outage_is_sat_out_with_few_probes(case: Case, tmp_path: Path) -> None:
    output_dir, questions = tmp_path / "out", case.questions
    with FakeEndpoint(questions.answer, model_id="m", latency=LATENCY) as endpoint:
        process = case.start(endpoint.chat_url, output_dir)
        wait_for(lambda: endpoint.count >= PREFLIGHT_REQUESTS + 15)
        asked, port = endpoint.count, endpoint.port
    time.sleep(AWAY_SECONDS)
    assert process.poll() is None, case.log(output_dir)

    with FakeEndpoint(questions.answer, model_id="m", latency=LATENCY, port=port) as endpoint:
        assert process.wait(60) == 0, case.log(output_dir)
        asked_again = endpoint.count

    assert case.score(output_dir) == questions.score
    counted = case.coverage(output_dir)["requests"]
    assert counted["answered"] == counted["sent"] == questions.count
    probes = counted["failed_exchanges"] - 2 * PARALLELISM
    assert probes <= MOST_PROBES_A_SECOND * AWAY_SECONDS + _BY_CHANCE
    # What was under way when it went is asked twice.
    assert asked + asked_again <= questions.count + PREFLIGHT_REQUESTS + PARALLELISM


def test_a_gateway_without_its_model_is_left_alone_too(
    ours: Case, tmp_path: Path, serve: Callable[[Script], ScriptedServer]
) -> None:
    case, output_dir = ours.asking(40), tmp_path / "out"
    refused: list[float] = []

    def script(request: Request) -> Response:
        now = time.monotonic()
        prompt = request.body.get("messages", [{"content": ""}])[-1]["content"]
        is_away = now - refused[0] < AWAY_SECONDS / 2 if refused else "0025" in prompt
        if is_away:
            refused.append(now)
            return Response(status=503, body={"error": {"message": "no model"}})
        text = case.questions.answer(ModelRequest(index=0, route="chat", prompt=prompt, body=request.body))
        message = {"role": "assistant", "content": text}
        return Response(body={"object": "chat.completion", "choices": [{"index": 0, "message": message}]})

    server = serve(script)

    assert case.finish(f"{server.url}/v1/chat/completions", output_dir) == 0, case.log(output_dir)

    assert case.score(output_dir) == case.questions.score
    # It takes a second, in which requests are repeated, to see that this is no passing failure.
    probes = [moment for moment in refused if moment - refused[0] > 1.5]
    assert len(probes) <= MOST_PROBES_A_SECOND * AWAY_SECONDS / 2 + _BY_CHANCE


def test_an_endpoint_that_stays_away_ends_the_run_which_can_go_on(case: Case, tmp_path: Path) -> None:
    output_dir, questions = tmp_path / "out", case.questions
    patience = "target.api_endpoint.adapter_config.retry.outage_seconds"
    with FakeEndpoint(questions.answer, model_id="m", latency=LATENCY) as endpoint:
        process = case.having(f"{patience}=2").start(endpoint.chat_url, output_dir)
        wait_for(lambda: endpoint.count >= PREFLIGHT_REQUESTS + 15)
        asked, port = endpoint.count, endpoint.port

    assert process.wait(30) == 3, case.log(output_dir)

    said = case.log(output_dir)
    assert f"the endpoint http://127.0.0.1:{port} has been unreachable for 2 s" in said
    assert "start the same command again, when the endpoint is back, to go on" in said
    assert "Traceback" not in said
    assert not (output_dir / "results.yml").exists()
    ended: dict[str, Any] = json.loads((output_dir / "status.json").read_text())
    assert ended["state"] == "interrupted"
    with FakeEndpoint(questions.answer, model_id="m") as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        assert asked + endpoint.count <= questions.count + 2 * PREFLIGHT_REQUESTS + PARALLELISM
    assert case.score(output_dir) == questions.score
