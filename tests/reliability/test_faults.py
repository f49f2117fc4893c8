"""Endpoints that fail in every way that endpoints have: runs end, with the right score or with an honest failure."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.core.conftest import Request, Response, Script, ScriptedServer
from tests.core.conftest import serve as serve  # noqa: PLC0414  a fixture, shared
from tests.reliability.conftest import PARALLELISM, Case

from nemo_evaluator.testing import FakeEndpoint, ModelRequest, RecordedRequest

SOON = "target.api_endpoint.adapter_config.retry.base_seconds=0.02"
CONNECTIONS = ("reset", "reset_mid_body", "truncated", "drip,seconds=0.3")
BODIES = ("malformed_json", "html", "empty", "error_body", "no_choices", "wrong_content_type")
STATUSES = ("500", "502", "503", "504", "529", "408", "409", "425", "429", "500,retry_after=0.2")
HARMLESS = ("drip,seconds=0.3", "wrong_content_type")
"""With these the answer is whole."""


def once(kinds: tuple[str, ...]) -> list[str]:
    """Each kind hits the first request about every tenth question."""
    return [f"{kind},first_per_prompt=1,match={digit} of the list" for digit, kind in enumerate(kinds)]


def samples(endpoint: FakeEndpoint) -> list[RecordedRequest]:
    """What the harness asked, without what was asked before it."""
    return [request for request in endpoint.requests if b"Which is letter" in request.raw]


def is_hit(request: RecordedRequest) -> bool:
    return request.fault is not None and not any(kind.startswith(request.fault) for kind in HARMLESS)


def check_counts(case: Case, output_dir: Path, endpoint: FakeEndpoint) -> dict[str, Any]:
    """Hold what the run counted against what the endpoint did; returns the former."""
    counted: dict[str, Any] = case.coverage(output_dir)["requests"]
    asked = samples(endpoint)
    assert counted["exchanges"] == len(asked)
    assert counted["retried"] == sum(is_hit(request) for request in asked)
    assert counted["exchanges"] == counted["sent"] - counted["cached"] + counted["retried"]
    return counted


@pytest.mark.parametrize("kinds", [CONNECTIONS, BODIES, STATUSES], ids=["connections", "bodies", "statuses"])
def test_what_fails_once_costs_no_sample(ours: Case, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    case, output_dir = ours.having(SOON), tmp_path / "out"

    with FakeEndpoint(case.questions.answer, model_id="m", faults=once(kinds)) as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        counted = check_counts(case, output_dir, endpoint)

    assert case.score(output_dir) == pytest.approx(case.questions.score)
    assert counted["answered"] == counted["sent"] == case.questions.count
    assert counted["retried"] == sum(kind not in HARMLESS for kind in kinds) * case.questions.count // 10


def test_a_harness_that_knows_nothing_of_it_gets_the_right_score_too(published: Case, tmp_path: Path) -> None:
    case, output_dir = published.having(SOON), tmp_path / "out"
    kinds = ("reset", "truncated", "malformed_json", "html", "500", "503", "429,retry_after=1", "drip,seconds=0.3")

    with FakeEndpoint(case.questions.answer, model_id="m", faults=once(kinds)) as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        counted = check_counts(case, output_dir, endpoint)

    assert case.score(output_dir) == pytest.approx(case.questions.score)
    assert counted["answered"] == counted["sent"] == case.questions.count


def test_connections_that_end_unannounced_cost_no_answer_twice(ours: Case, tmp_path: Path) -> None:
    output_dir = tmp_path / "out"

    with FakeEndpoint(ours.questions.answer, model_id="m", faults=["close,every=2"]) as endpoint:
        assert ours.finish(endpoint.chat_url, output_dir) == 0, ours.log(output_dir)
        asked = len(samples(endpoint))

    assert ours.score(output_dir) == pytest.approx(ours.questions.score)
    assert asked == ours.questions.count
    counted = ours.coverage(output_dir)["requests"]
    # Those that met the end of their connection were sent again, and the endpoint never saw them before.
    assert counted["exchanges"] - counted["retried"] == asked
    assert counted["answered"] == asked


def test_a_third_of_all_exchanges_may_fail(ours: Case, tmp_path: Path) -> None:
    case, output_dir = ours.having(SOON), tmp_path / "out"
    faults = ["500,probability=0.15", "503,probability=0.1,seed=1", "reset,probability=0.05,seed=2"]

    with FakeEndpoint(case.questions.answer, model_id="m", faults=faults) as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        asked = samples(endpoint)

    covered = case.coverage(output_dir)
    counted = covered["requests"]
    assert counted["exchanges"] == len(asked)
    assert counted["failed_exchanges"] <= sum(request.fault == "reset" for request in asked)
    assert covered["scored"] + covered["failed"] == covered["planned"] == case.questions.count
    assert counted["answered"] == covered["scored"] == sum(request.status == 200 for request in asked)
    assert covered["failed"] <= 0.1 * case.questions.count


def test_an_endpoint_that_bears_little_is_not_overrun(ours: Case, tmp_path: Path) -> None:
    case, output_dir = ours.having(SOON), tmp_path / "out"
    asks_for_time = ["429,retry_after=0.5,first_per_prompt=1,match=00[27]6 of the list"]

    with FakeEndpoint(
        case.questions.answer, model_id="m", max_concurrent=3, latency=0.02, faults=asks_for_time
    ) as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        counted = case.coverage(output_dir)["requests"]
        refused = sum(request.status == 429 for request in samples(endpoint))
        assert counted["exchanges"] == len(samples(endpoint))

    assert case.score(output_dir) == pytest.approx(case.questions.score)
    assert counted["retried"] == refused
    # It finds the limit; asking PARALLELISM at a time all the time would be refused more often than answered.
    assert refused < case.questions.count


def test_what_fails_for_good_is_counted_and_not_scored(ours: Case, tmp_path: Path) -> None:
    case, output_dir = ours.having(SOON), tmp_path / "out"
    faults = ["400,match=7 of the list"]

    with FakeEndpoint(case.questions.answer, model_id="m", faults=faults) as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        assert len(samples(endpoint)) == case.questions.count

    covered = case.coverage(output_dir)
    lost = case.questions.count // 10
    kept = [number for number in range(case.questions.count) if number % 10 != 7]
    assert (covered["planned"], covered["scored"], covered["failed"]) == (90, 90 - lost, lost)
    assert covered["requests"]["failed"] == lost
    assert case.score(output_dir) == pytest.approx(sum(number % 3 != 0 for number in kept) / len(kept))


def test_a_key_that_is_withdrawn_stops_the_run_which_goes_on_with_a_new_one(ours: Case, tmp_path: Path) -> None:
    case, output_dir = ours.having("target.api_endpoint.api_key_name=MODEL_KEY", MODEL_KEY="k"), tmp_path / "out"
    questions = case.questions
    withdrawn_after = 30

    with FakeEndpoint(
        questions.answer, model_id="m", faults=[f"401,probability=1,at={_numbers(withdrawn_after, 500)}"]
    ) as endpoint:
        code = case.finish(endpoint.chat_url, output_dir)
        asked = endpoint.count
    with FakeEndpoint(questions.answer, model_id="m") as endpoint:
        assert code == 3
        assert not (output_dir / "results.yml").exists()
        assert "401" in case.log(output_dir)
        # The engine gives up after twenty in a row that were refused.
        assert asked <= withdrawn_after + 20 + PARALLELISM
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        assert len(samples(endpoint)) <= questions.count - (withdrawn_after - 3 - PARALLELISM)

    assert case.score(output_dir) == pytest.approx(questions.score)


def _numbers(first: int, last: int) -> str:
    return "+".join(map(str, range(first, last)))


def test_a_redirection_is_not_followed_and_takes_no_key_along(ours: Case, tmp_path: Path) -> None:
    case, output_dir = ours.having("target.api_endpoint.api_key_name=MODEL_KEY", MODEL_KEY="k"), tmp_path / "out"

    with FakeEndpoint(case.questions.answer, model_id="m") as other:
        faults = [
            f"{status},match={digit} of the list,location={other.chat_url}"
            for digit, status in enumerate((301, 302, 307, 308))
        ]
        with FakeEndpoint(case.questions.answer, model_id="m", faults=faults, require_key="k") as endpoint:
            code = case.finish(endpoint.chat_url, output_dir)
        assert other.count == 0

    assert code == 3
    assert not (output_dir / "results.yml").exists()
    assert any(f"HTTP {status}" in case.log(output_dir) for status in (301, 302, 307, 308)), case.log(output_dir)


def scripted(questions_answer: Callable[[ModelRequest], str], odd: Callable[[str], Response]) -> Script:
    """A server that answers each third question in an odd way."""

    def script(request: Request) -> Response:
        prompt = request.body.get("messages", [{"content": ""}])[-1]["content"] if request.body else ""
        text = questions_answer(ModelRequest(index=0, route="chat", prompt=prompt, body=request.body))
        _, found, rest = prompt.partition("Which is letter ")
        if found and int(rest[:4]) % 3 == 1:
            return odd(text)
        return Response(body=_body(text))

    return script


def _body(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def _long_line(text: str) -> Response:
    return Response(body=_body("x" * 1_000_000 + "\n" + text))


def _packed(text: str) -> Response:
    data = gzip.compress(json.dumps(_body(" " * 2_000_000 + text)).encode())
    return Response(body=data, headers=(("Content-Encoding", "gzip"),))


def _invalid_utf_8(text: str) -> Response:
    return Response(body=json.dumps(_body("MARK" + text)).encode().replace(b"MARK", b"\xff\xfe\xed\xa0\x80 "))


def _other_type(text: str) -> Response:
    return Response(body=json.dumps(_body(text)).encode(), headers=(("Content-Type", "image/png"),))


@pytest.mark.parametrize("odd", [_long_line, _packed, _other_type])
def test_odd_answers_are_answers(
    ours: Case, tmp_path: Path, serve: Callable[[Script], ScriptedServer], odd: Callable[[str], Response]
) -> None:
    case, output_dir = ours.asking(30), tmp_path / "out"
    server = serve(scripted(case.questions.answer, odd))

    assert case.finish(f"{server.url}/v1/chat/completions", output_dir) == 0, case.log(output_dir)

    assert case.score(output_dir) == pytest.approx(case.questions.score)
    assert case.coverage(output_dir)["scored"] == 30


def test_bytes_that_are_no_text_fail_their_sample_or_are_read(
    ours: Case, tmp_path: Path, serve: Callable[[Script], ScriptedServer]
) -> None:
    allowed = "config.params.extra.max_failed_fraction=0.5"
    case, output_dir = ours.asking(30).having(SOON, allowed), tmp_path / "out"
    server = serve(scripted(case.questions.answer, _invalid_utf_8))

    assert case.finish(f"{server.url}/v1/chat/completions", output_dir) == 0, case.log(output_dir)

    covered = case.coverage(output_dir)
    assert covered["scored"] + covered["failed"] == covered["planned"] == 30
    kept = [number for number in range(30) if number % 3 != 1 or not covered["failed"]]
    assert covered["scored"] == len(kept)
    assert covered["requests"]["retried"] == 2 * covered["failed"]
    assert case.score(output_dir) == pytest.approx(sum(number % 3 != 0 for number in kept) / len(kept))
