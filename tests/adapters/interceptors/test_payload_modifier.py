from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from tests.adapters.conftest import Client
from tests.adapters.interceptors.conftest import Behind, Recorder

from nemo_evaluator.adapters.chain import resolve_chain
from nemo_evaluator.api.adapter_config import AdapterConfig
from nemo_evaluator.errors import MisconfigurationError


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"params_to_remove": ["seed"]}, {"model": "m", "n": 1, "nested": [{"x": 1}]}),
        ({"params_to_add": {"n": 2, "new": {"a": None}}}, {"model": "m", "n": 2, "seed": 1, "new": {"a": None}}),
        ({"params_to_rename": {"n": "count"}}, {"model": "m", "count": 1, "seed": 1}),
        # First remove, then add, then rename.
        (
            {"params_to_remove": ["n"], "params_to_add": {"n": 5}, "params_to_rename": {"n": "seed"}},
            {"model": "m", "seed": 5},
        ),
        ({"params_to_remove": ["absent"], "params_to_rename": {"absent": "x"}}, {"model": "m", "n": 1, "seed": 1}),
    ],
)
def test_parameters_are_changed(
    behind: Behind, client: Client, recorder: Recorder, parameters: dict[str, Any], expected: dict[str, Any]
) -> None:
    proxy = behind(("payload_modifier", parameters))
    client.post(proxy.url, {"model": "m", "n": 1, "seed": 1, "nested": [{"seed": 2, "x": 1}]})
    body = recorder.bodies[0]
    assert {key: body[key] for key in expected} == expected
    assert set(body) == {*expected, "nested"}


def test_removal_reaches_every_depth(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("payload_modifier", {"params_to_remove": ["secret", "x"]}))
    client.post(proxy.url, {"a": [{"secret": 1, "b": [[{"x": 1, "y": 2}]]}], "secret": {"y": 1}})
    assert recorder.bodies == [{"a": [{"b": [[{"y": 2}]]}]}]


def test_headers_are_removed_renamed_and_added_whatever_their_case(
    behind: Behind, client: Client, recorder: Recorder
) -> None:
    parameters = {
        "headers_to_remove": ["X-REMOVE"],
        "headers_to_rename": {"x-old": "X-New"},
        "headers_to_add": {"X-Key": "k1", "authorization": "Bearer k2", "X-Number": 7},
    }
    proxy = behind(("payload_modifier", parameters))
    sent = {"X-Remove": "1", "X-Old": "2", "X-Kept": "3", "Authorization": "Bearer dummy"}
    client.post(proxy.url, b"{}", headers=sent)
    seen = recorder.headers[0]
    assert "x-remove" not in seen
    assert "x-old" not in seen
    assert {name: seen[name] for name in ("x-new", "x-kept", "x-key", "authorization", "x-number")} == {
        "x-new": "2",
        "x-kept": "3",
        "x-key": "k1",
        "authorization": "Bearer k2",
        "x-number": "7",
    }


def test_headers_of_the_connection_cannot_be_added(behind: Behind, client: Client, recorder: Recorder) -> None:
    added = {"Host": "evil.example", "Content-Length": "1", "Transfer-Encoding": "chunked", "Connection": "close"}
    proxy = behind(("payload_modifier", {"headers_to_add": added}))
    assert client.post(proxy.url, {"a": "b"}).status == 200
    assert recorder.headers[0]["host"].startswith("127.0.0.1:")
    assert recorder.bodies == [{"a": "b"}]


def test_without_parameters_to_change_the_body_keeps_its_bytes(
    behind: Behind, client: Client, recorder: Recorder
) -> None:
    proxy = behind(("payload_modifier", {"headers_to_add": {"X-A": "1"}}))
    body = b'{ "a" : 1.50 }'
    client.post(proxy.url, body)
    assert recorder.headers[0]["content-length"] == str(len(body))


@pytest.mark.parametrize("body", [b"[1]", b"not json", b"\xff", b""])
def test_a_body_that_cannot_be_changed_fails_and_is_not_sent(
    behind: Behind, client: Client, recorder: Recorder, body: bytes
) -> None:
    proxy = behind(("payload_modifier", {"params_to_add": {"a": 1}}))
    reply = client.post(proxy.url, body)
    assert reply.status == 500
    assert reply.json()["error"]["code"] == "payload_modifier"
    assert recorder.bodies == []


def test_requests_without_a_body_get_the_headers(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("payload_modifier", {"headers_to_add": {"X-A": "1"}, "params_to_add": {"a": 1}}))
    assert client.ask("GET", proxy.url.removesuffix("/chat/completions") + "/models").status == 200
    assert recorder.headers[0]["x-a"] == "1"


@pytest.mark.parametrize("value", [float("nan"), {"a": [1, float("-inf")]}, {1, 2}, dt.date(2026, 1, 1)])
def test_values_that_json_has_no_form_for_are_refused_with_the_configuration(value: Any) -> None:
    config = AdapterConfig.model_construct(params_to_add={"bad": value, "good": 1})
    with pytest.raises(MisconfigurationError, match=r"payload_modifier.*'bad' cannot be sent"):
        resolve_chain(config, output_dir="out")


def test_added_values_are_those_of_the_configuration_for_every_request(
    behind: Behind, client: Client, recorder: Recorder
) -> None:
    added = {"messages": [{"role": "user", "content": "x"}], "options": {"n": 1}}
    proxy = behind(
        ("payload_modifier", {"params_to_add": added}),
        ("system_message", {"system_message": "s"}),
        ("drop_params", {"params": ["options.n"]}),
    )
    for _ in range(2):
        client.post(proxy.url, {})
    system = {"role": "system", "content": "s"}
    assert recorder.bodies == [{"messages": [system, *added["messages"]], "options": {}}] * 2


def test_other_paths_are_changed_too(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("payload_modifier", {"params_to_add": {"user": "u"}, "params_to_remove": ["model"]}))
    base = proxy.url.removesuffix("/chat/completions")
    for path in ("/embeddings", "/completions", "/responses"):
        client.post(base + path, {"model": "m", "input": ["x"]})
    assert recorder.bodies == [{"input": ["x"], "user": "u"}] * 3


def test_added_headers_stay_out_of_messages(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("payload_modifier", {"headers_to_add": {"X-Gateway": "blue-horse"}}))
    recorder.status, recorder.body = 403, b'{"error": {"message": "blue-horse may not ask"}}'
    client.post(proxy.url)
    assert recorder.headers[0]["x-gateway"] == "blue-horse"
    assert "may not ask" in str(proxy.stats())
    assert "blue-horse" not in str(proxy.stats())
