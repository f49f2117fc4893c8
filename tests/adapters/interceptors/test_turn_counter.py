from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve
from tests.adapters.interceptors.conftest import Behind, Recorder

from nemo_evaluator.adapters.proxy import Upstream, running_proxy
from nemo_evaluator.api.adapter_config import InterceptorConfig

ANSWER = b'{"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}'
SHOTS = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]


@pytest.fixture(autouse=True)
def _answers(recorder: Recorder) -> None:
    recorder.body = ANSWER


def conversation(question: str, turn: int, *, before: list[dict[str, str]] | None = None) -> dict[str, Any]:
    messages = [*(before or []), {"role": "user", "content": question}]
    for number in range(turn - 1):
        messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": f"why {number}"}]
    return {"model": "m", "messages": messages}


def test_turns_are_counted_by_conversation(
    behind: Behind, client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = behind(("turn_counter", {}))
    for question, turns in (("a", 1), ("b", 3), ("c", 2)):
        for turn in range(1, turns + 1):
            assert client.post(proxy.url, conversation(question, turn)).status == 200
    recorder.status = 500
    client.post(proxy.url, conversation("d", 1))
    assert proxy.stats().blocks["turns"] == {
        "conversations": 3,
        "turns": 6,
        "mean": 2.0,
        "max": 3,
        "max_turns": None,
        "over_limit": 0,
    }
    with caplog.at_level(logging.INFO):
        proxy.stop()
    assert "6 turns in 3 conversations, mean 2.0, longest 3" in caplog.text


def test_examples_in_a_prompt_are_no_turns(behind: Behind, client: Client) -> None:
    proxy = behind(("turn_counter", {"max_turns": 2}))
    before = SHOTS * 5
    for question in ("a", "b"):
        statuses = [client.post(proxy.url, conversation(question, turn, before=before)).status for turn in (1, 2, 3)]
        assert statuses == [200, 200, 400]
    assert proxy.stats().blocks["turns"]["max"] == 2


def test_a_conversation_beyond_the_limit_is_refused_and_not_sent(
    behind: Behind, client: Client, recorder: Recorder
) -> None:
    proxy = behind(("raise_client_errors", {}), ("turn_counter", {"max_turns": 2}))
    replies = [client.post(proxy.url, conversation("a", turn)) for turn in (1, 2, 3)]
    assert [reply.status for reply in replies] == [200, 200, 400]
    error = replies[2].json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "max_turns_exceeded")
    assert "2 turns" in error["message"]
    assert "max_turns" in error["message"]
    assert len(recorder.bodies) == 2
    stats = proxy.stats()
    assert (stats.answered, stats.by_status, stats.blocks["turns"]["over_limit"]) == (2, {200: 2, 400: 1}, 1)
    # It is the limit of one conversation, and no refusal of the endpoint.
    assert proxy.ends.reason is None
    assert client.post(proxy.url, conversation("b", 1)).status == 200


def test_with_stop_the_conversation_ends_with_an_empty_answer(
    behind: Behind, client: Client, recorder: Recorder
) -> None:
    proxy = behind(("finish_reason", {}), ("turn_counter", {"max_turns": 1, "on_limit": "stop"}))
    client.post(proxy.url, conversation("a", 1))
    answer = client.post(proxy.url, conversation("a", 2)).json()
    assert answer["model"] == "m"
    assert answer["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}
    ]
    streamed = client.post(proxy.url, conversation("a", 2) | {"stream": True})
    assert streamed.headers["Content-Type"] == "text/event-stream"
    first, done, _ = streamed.body.split(b"\n\n")
    assert json.loads(first.removeprefix(b"data: "))["choices"][0]["finish_reason"] == "length"
    assert done == b"data: [DONE]"
    assert len(recorder.bodies) == 1
    # The cut is counted; nothing was asked of the endpoint.
    stats = proxy.stats()
    assert (stats.truncated_samples, stats.sent) == (1, 1)


def test_samples_that_the_harness_names_are_conversations_of_their_own(behind: Behind, client: Client) -> None:
    proxy = behind(("turn_counter", {"max_turns": 1}))
    # A harness that only ever sends the middle of a conversation, under two names.
    for sample in ("s1", "s2"):
        first = client.post(proxy.url, conversation("a", 2), headers={"X-Sample-Id": sample})
        second = client.post(proxy.url, conversation("a", 3), headers={"X-Sample-Id": sample})
        assert (first.status, second.status) == (200, 400)


@pytest.mark.parametrize("body", [b'{"prompt": "x"}', b"[]", b"no json", b'{"messages": "none"}', b"\xff"])
def test_what_is_no_conversation_passes(serve: Serve, client: Client, body: bytes) -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.Response(body=ANSWER, content_type="application/json")

    chain = [InterceptorConfig(name="turn_counter", config={"max_turns": 1})]
    with running_proxy(Upstream(f"{serve(handle)}/v1/chat/completions"), chain) as proxy:
        assert [client.post(proxy.url, body).status for _ in range(2)] == [200, 200]
    assert seen == [body, body]
