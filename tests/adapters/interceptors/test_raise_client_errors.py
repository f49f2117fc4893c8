from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.adapters.conftest import Client
from tests.adapters.interceptors.conftest import Behind, Recorder

from nemo_evaluator.adapters.interceptors.raise_client_errors import RaiseClientErrorsParameters


def test_after_a_refused_request_no_other_is_sent(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("raise_client_errors", {}))
    recorder.body = b'{"choices": [{"message": {"content": "x"}}]}'
    assert client.post(proxy.url).status == 200
    recorder.status, recorder.body = 401, b'{"error": {"message": "bad key"}}'
    first = client.post(proxy.url)
    assert (first.status, first.json()) == (401, {"error": {"message": "bad key"}})
    recorder.status = 200
    for _ in range(3):
        reply = client.post(proxy.url)
        assert reply.status == 401
        assert reply.json()["error"]["type"] == "run_ended"
    assert len(recorder.bodies) == 2
    assert "401" in (proxy.ends.reason or "")
    assert proxy.stats().answered == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_pass_by_itself_does_not_end_the_run(
    behind: Behind, client: Client, recorder: Recorder, status: int
) -> None:
    proxy = behind(("raise_client_errors", {}))
    recorder.status = status
    assert client.post(proxy.url).status == status
    assert proxy.ends.reason is None


@pytest.mark.parametrize(
    ("parameters", "status", "expected"),
    [
        ({}, 400, True),
        ({}, 499, True),
        ({}, 500, False),
        ({"status_codes": [503]}, 503, True),
        ({"exclude_status_codes": [404]}, 404, False),
        ({"exclude_status_codes": [404]}, 429, True),
        ({"status_code_range_end": None}, 599, True),
        ({"status_code_range_start": None}, 200, True),
        ({"status_code_range_start": None, "status_code_range_end": None}, 400, False),
        ({"status_code_range_start": None, "status_code_range_end": None, "status_codes": [400]}, 400, True),
    ],
)
def test_which_statuses_end_the_run(parameters: dict[str, Any], status: int, *, expected: bool) -> None:
    assert RaiseClientErrorsParameters.model_validate(parameters).ends_the_run(status) is expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"status_codes": [429]},
        {"status_code_range_start": 500, "status_code_range_end": 500},
        {"status_codes": [42]},
    ],
)
def test_contradictions_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RaiseClientErrorsParameters.model_validate(parameters)


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/event-stream"])
def test_the_refusal_is_counted_and_reaches_the_harness_whole(
    behind: Behind, client: Client, recorder: Recorder, kind: str
) -> None:
    proxy = behind(("raise_client_errors", {}))
    recorder.status, recorder.body, recorder.content_type = 403, b"no " * 100_000, kind
    reply = client.post(proxy.url)
    assert (reply.status, reply.body) == (403, recorder.body)
    stats = proxy.stats()
    assert (stats.upstream_by_status, stats.by_status, stats.responses) == ({403: 1}, {403: 1}, 1)
    assert "'model' answered 403" in (proxy.ends.reason or "")


def test_errors_that_the_endpoint_did_not_send_do_not_end_the_run(
    behind: Behind, client: Client, recorder: Recorder
) -> None:
    parameters = {"status_code_range_end": None}
    proxy = behind(("raise_client_errors", parameters), ("turn_counter", {"max_turns": 1}))
    recorder.body = b'{"choices": [{"message": {"content": "x"}}]}'
    messages = [{"role": "user", "content": "x"}]
    assert client.post(proxy.url, {"messages": messages}).status == 200
    messages += [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
    assert client.post(proxy.url, {"messages": messages}).status == 400
    assert client.post(proxy.url.removesuffix("/v1/chat/completions") + "/elsewhere").status == 404
    assert proxy.ends.reason is None


def test_a_model_list_that_is_refused_does_not_end_the_run(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("raise_client_errors", {}))
    recorder.status = 404
    assert client.ask("GET", proxy.url.removesuffix("/chat/completions") + "/models").status == 404
    assert proxy.ends.reason is None
