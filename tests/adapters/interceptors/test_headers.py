from __future__ import annotations

import logging
from typing import Any

import pytest
from tests.adapters.conftest import Client
from tests.adapters.interceptors.conftest import Behind, Recorder

from nemo_evaluator.adapters.redaction import redact_interceptor
from nemo_evaluator.adapters.registry import BUILT_IN, check
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError

VALUE = "blue horse 17"


@pytest.fixture(autouse=True)
def _variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CODE", VALUE)


def refusal(parameters: dict[str, Any]) -> str:
    with pytest.raises(MisconfigurationError) as caught:
        check(InterceptorConfig(name="headers", config=parameters), place="chain", known=BUILT_IN)
    return str(caught.value)


def test_headers_are_removed_and_set_whatever_their_case(behind: Behind, client: Client, recorder: Recorder) -> None:
    parameters = {
        "set": {"X-Team": {"value": "evals"}, "X-Plain": "text", "x-number": 7, "X-Code": {"env": "GATEWAY_CODE"}},
        "from_env": {"Authorization": "GATEWAY_CODE"},
        "remove": ["X-OLD"],
    }
    proxy = behind(("headers", parameters))
    assert client.post(proxy.url, headers={"x-old": "1", "x-team": "harness", "X-Kept": "2"}).status == 200
    seen = recorder.headers[0]
    assert "x-old" not in seen
    assert {name: seen[name] for name in ("x-team", "x-plain", "x-number", "x-code", "authorization", "x-kept")} == {
        "x-team": "evals",
        "x-plain": "text",
        "x-number": "7",
        "x-code": VALUE,
        "authorization": VALUE,
        "x-kept": "2",
    }


def test_a_variable_may_hold_the_key_alone(
    behind: Behind, client: Client, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "bluehorse17")
    proxy = behind(("headers", {"set": {"Authorization": {"env": "GATEWAY_KEY", "prefix": "Bearer "}}}))
    recorder.status, recorder.body = 401, b'{"error": {"message": "unknown: bluehorse17"}}'
    client.post(proxy.url)
    assert recorder.headers[0]["authorization"] == "Bearer bluehorse17"
    assert "unknown: <redacted>" in str(proxy.stats())


def test_model_lists_get_them_too(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("headers", {"from_env": {"X-Code": "GATEWAY_CODE"}}))
    client.ask("GET", proxy.url.removesuffix("/chat/completions") + "/models")
    assert recorder.headers[0]["x-code"] == VALUE


@pytest.mark.parametrize(
    "parameters", [{"set": {"X-Code": {"env": "NOT_THERE"}}}, {"from_env": {"X-Code": "NOT_THERE"}}]
)
def test_a_variable_that_is_not_there_is_named_before_anything_is_sent(
    behind: Behind, parameters: dict[str, Any]
) -> None:
    with pytest.raises(MisconfigurationError, match=r"'X-Code'.*NOT_THERE.*unset or empty"):
        behind(("headers", parameters))


def test_a_value_of_two_lines_is_refused_and_not_shown(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CODE", f"{VALUE}\r\nX-Evil: 1")
    with pytest.raises(MisconfigurationError, match="line break") as caught:
        behind(("headers", {"from_env": {"X-Code": "GATEWAY_CODE"}}))
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("X-Api-Key", "hunter2-s3cret"),
        ("Authorization", {"value": "Bearer hunter2-s3cret"}),
        ("Cookie", "session=hunter2-s3cret"),
        ("X-Note", "sk-hunter2-s3cret0123456789"),
    ],
)
def test_secrets_in_the_configuration_are_refused_and_not_shown(name: str, item: Any) -> None:
    text = refusal({"set": {name: item}})
    assert f"write {name}: {{env: MY_VARIABLE}}" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"set": {"Host": "evil.example"}}, "'Host' belongs to the connection"),
        ({"remove": ["transfer-encoding"]}, "belongs to the connection"),
        ({"from_env": {"Content-Length": "N"}}, "belongs to the connection"),
        ({"set": {"X-A: hunter2": "1"}}, "beginning with 'X-A'"),
        ({"set": {"X-A": "one\ntwo"}}, "line break"),
        ({"set": {"X-A": {"value": "1", "env": "B"}}}, "needs {env: VARIABLE}"),
        ({"set": {"X-A": {"env": "B", "prefix": "two words "}}}, "prefix"),
        ({"set": {"X-A": None}}, "needs {env: VARIABLE}"),
        ({"set": {"X-A": {"file": "x"}}}, "set.X-A"),
        ({"from_env": {"X-A": "hunter2-s3cret"}}, "needs the name of an environment variable"),
        ({"set": {"X-A": "1"}, "from_env": {"x-a": "B"}}, "set twice"),
        ({}, "nothing to do"),
        ({"sett": {}}, "Did you mean 'set'"),
    ],
)
def test_what_cannot_be_meant_is_refused(parameters: dict[str, Any], expected: str) -> None:
    text = refusal(parameters)
    assert expected in text
    assert "hunter2" not in text


def test_an_endpoint_that_repeats_a_value_does_not_bring_it_into_messages(
    behind: Behind, client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = behind(
        ("failed_request_logging", {}),
        ("headers", {"from_env": {"X-Code": "GATEWAY_CODE"}}),
        ("request_logging", {}),
    )
    recorder.status, recorder.body = 403, b'{"error": {"message": "blue horse 17 may not ask"}}'
    with caplog.at_level(logging.INFO):
        assert client.post(proxy.url).status == 403
    assert recorder.headers[0]["x-code"] == VALUE
    assert "may not ask" in caplog.text
    assert "X-Code" in caplog.text
    assert VALUE not in caplog.text + str(proxy.stats())


def test_names_of_variables_stay_in_written_configurations() -> None:
    config = {"set": {"X-Api-Key": {"env": "A"}}, "from_env": {"Authorization": "B", "X-Token": "no-variable"}}
    written = redact_interceptor(InterceptorConfig(name="headers", config=config)).config
    assert written == {
        "set": {"X-Api-Key": {"env": "A"}},
        "from_env": {"Authorization": "B", "X-Token": "<redacted>"},
    }
