from __future__ import annotations

from typing import Any

import pytest
from tests.adapters.conftest import Client
from tests.adapters.interceptors.conftest import Behind, Recorder

USER = {"role": "user", "content": "Hello"}
TEXT = "Be brief."


@pytest.mark.parametrize(
    ("strategy", "messages", "expected"),
    [
        (None, [USER], TEXT),
        ("prepend", [{"role": "system", "content": "Old."}, USER], "Be brief.\nOld."),
        ("append", [{"role": "system", "content": "Old."}, USER], "Old.\nBe brief."),
        ("replace", [{"role": "system", "content": "Old."}, USER], TEXT),
        ("append", [{"role": "system", "content": "1"}, USER, {"role": "system", "content": "2"}], "1\n2\nBe brief."),
        ("prepend", [{"role": "system", "content": [{"type": "text", "text": "Old."}]}, USER], "Be brief.\nOld."),
    ],
)
def test_there_is_one_system_message_and_it_comes_first(
    behind: Behind,
    client: Client,
    recorder: Recorder,
    *,
    strategy: str | None,
    messages: list[dict[str, Any]],
    expected: str,
) -> None:
    parameters = {"system_message": TEXT} | ({"strategy": strategy} if strategy else {})
    proxy = behind(("system_message", parameters))
    body = {"model": "m", "messages": messages, "temperature": 0.5, "extra": {"kept": [1]}}
    assert client.post(proxy.url, body).status == 200
    others = [message for message in messages if message["role"] != "system"]
    assert recorder.bodies == [{**body, "messages": [{"role": "system", "content": expected}, *others]}]


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "no conversation"}',
        b'{"messages": "none"}',
        b"[]",
        b"not json",
        b'{"messages": [{"role": "system", "content": [{"type": "image_url"}]}]}',
    ],
)
def test_a_request_that_cannot_get_it_fails_and_is_not_sent(
    behind: Behind, client: Client, recorder: Recorder, body: bytes
) -> None:
    proxy = behind(("system_message", {"system_message": TEXT}))
    reply = client.post(proxy.url, body)
    error = reply.json()["error"]
    assert reply.status == 500
    assert (error["type"], error["code"]) == ("interceptor_error", "system_message")
    assert recorder.bodies == []
    stats = proxy.stats()
    assert (stats.answered, stats.interceptor_failures, stats.by_status) == (0, 1, {500: 1})


def test_two_of_them_both_count(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("system_message", {"system_message": "outer"}), ("system_message", {"system_message": "inner"}))
    client.post(proxy.url, {"messages": [USER]})
    assert recorder.bodies[0]["messages"][0]["content"] == "inner\nouter"


def test_model_lists_pass(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("system_message", {"system_message": TEXT}))
    assert client.ask("GET", proxy.url.removesuffix("/chat/completions") + "/models").status == 200
    assert recorder.bodies == [None]


@pytest.mark.parametrize(
    ("strategy", "earlier", "expected"),
    [
        ("prepend", None, TEXT),
        ("prepend", "Old.", "Be brief.\nOld."),
        ("append", "Old.", "Old.\nBe brief."),
        ("replace", "Old.", TEXT),
    ],
)
def test_requests_for_responses_get_it_as_instructions(
    behind: Behind, client: Client, recorder: Recorder, *, strategy: str, earlier: str | None, expected: str
) -> None:
    proxy = behind(("system_message", {"system_message": TEXT, "strategy": strategy}))
    body = {"input": "Hello"} | ({"instructions": earlier} if earlier else {})
    client.post(proxy.url.removesuffix("/chat/completions") + "/responses", body)
    assert recorder.bodies == [{"input": "Hello", "instructions": expected}]


def test_requests_for_embeddings_pass(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("system_message", {"system_message": TEXT}))
    assert client.post(proxy.url.removesuffix("/chat/completions") + "/embeddings", {"input": "x"}).status == 200
    assert recorder.bodies == [{"input": "x"}]


def test_pictures_and_sounds_of_the_conversation_are_kept(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("system_message", {"system_message": TEXT}))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    message = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture, sound]}
    client.post(proxy.url, {"messages": [message], "stream": True})
    assert recorder.bodies == [{"messages": [{"role": "system", "content": TEXT}, message], "stream": True}]
