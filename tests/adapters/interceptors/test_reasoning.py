from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import itertools
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.adapters.conftest import Client, Serve
from tests.adapters.interceptors.conftest import Behind, Recorder
from tests.adapters.interceptors.crowd import Link, chat
from tests.adapters.interceptors.crowd import behind as chain_before

from nemo_evaluator.adapters.proxy import ProxyOptions, Upstream, running_proxy
from nemo_evaluator.adapters.reasoning_counts import COUNTS, Reasoned
from nemo_evaluator.adapters.reasoning_stream import ReasoningRewriter
from nemo_evaluator.adapters.reasoning_text import ReasoningRules
from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.testing import FakeEndpoint


def _answer(*messages: dict[str, Any]) -> bytes:
    choices = [{"index": n, "message": message, "finish_reason": "stop"} for n, message in enumerate(messages)]
    return json.dumps({"id": "1", "choices": choices, "usage": {"completion_tokens": 9}}).encode()


def _assistant(content: str | None, **values: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **values}


@pytest.mark.parametrize(
    ("parameters", "content", "expected"),
    [
        ({}, "<think>hm</think>\n\n42\n", "42"),
        ({}, "hm</think>42", "42"),
        ({}, "<think>a</think>b</think>\n c ", " c "),
        ({}, "no reasoning", "no reasoning"),
        ({}, "<think>never ends", "<think>never ends"),
        ({"include_if_not_finished": False}, "<think>never ends", ""),
        ({"include_if_not_finished": False}, "a</think>b", "b"),
        ({"end_reasoning_token": "[/T]", "start_reasoning_token": "[T]"}, "[T]x[/T]\ny</think>z", "y</think>z"),
        ({"add_reasoning": False}, "<think>hm</think>42", "<think>hm</think>42"),
        ({}, "<think>only</think>", ""),
        ({}, "", ""),
    ],
)
def test_reasoning_is_taken_out_of_the_content(
    behind: Behind, client: Client, recorder: Recorder, *, parameters: dict[str, Any], content: str, expected: str
) -> None:
    proxy = behind(("reasoning", parameters))
    recorder.body = _answer(_assistant(content))
    assert client.post(proxy.url).json() == json.loads(_answer(_assistant(expected)))


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_in_a_field_of_its_own_leaves_the_content_alone(
    behind: Behind, client: Client, recorder: Recorder, field: str
) -> None:
    proxy = behind(("reasoning", {"include_if_not_finished": False}))
    recorder.body = _answer(_assistant("a </think> in an answer about HTML", **{field: "hm"}))
    assert client.post(proxy.url).body == recorder.body


def test_a_field_can_be_put_before_the_content(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("reasoning", {"add_reasoning": False, "migrate_reasoning_content": True}))
    recorder.body = _answer(_assistant("42", reasoning_content="hm"), _assistant("43"))
    choices = client.post(proxy.url).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["<think>hm</think>42", "43"]


def test_all_choices_are_changed_and_tool_calls_stay(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("reasoning", {}))
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    recorder.body = _answer(_assistant("a</think>b"), _assistant("c</think>d", tool_calls=[call]), {"role": "tool"})
    messages = [choice["message"] for choice in client.post(proxy.url).json()["choices"]]
    assert messages == [_assistant("b"), _assistant("d", tool_calls=[call]), {"role": "tool"}]


def test_a_packed_answer_is_unpacked(serve: Serve, client: Client) -> None:
    async def respond(_request: web.Request) -> web.Response:
        body = gzip.compress(_answer(_assistant("a</think>b")))
        return web.Response(body=body, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})

    chain = [InterceptorConfig(name="reasoning")]
    with running_proxy(Upstream(f"{serve(respond)}/v1/chat/completions"), chain) as proxy:
        reply = client.post(proxy.url, headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in reply.headers
    assert reply.json()["choices"][0]["message"]["content"] == "b"


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (429, "application/json", b'{"error": {"message": "x</think>y"}}'),
        (200, "text/html", b"<html></think>"),
        (200, "application/json", b"cut {"),
        (200, "application/json", b"null"),
        (200, "application/json", b'{"choices": [null, {"message": null}, {"text": "x</think>y"}]}'),
        (200, "application/json", b'{ "choices" : [] }'),
    ],
)
def test_what_has_no_message_passes_byte_for_byte(
    behind: Behind, client: Client, recorder: Recorder, *, status: int, content_type: str, body: bytes
) -> None:
    proxy = behind(("reasoning", {}))
    recorder.status, recorder.content_type, recorder.body = status, content_type, body
    reply = client.post(proxy.url)
    assert (reply.status, reply.body) == (status, body)


def _events(*contents: str, index: int = 0) -> list[str]:
    return [
        "data: " + json.dumps({"id": "1", "choices": [{"index": index, "delta": {"content": content}}]})
        for content in contents
    ]


def _stream(*events: str) -> bytes:
    return ("\n\n".join([*events, "data: [DONE]"]) + "\n\n").encode()


def _contents(stream: bytes) -> dict[int, str]:
    found: dict[int, str] = {}
    for line in stream.decode().split("\n"):
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                text = choice["delta"].get("content") or ""
                found[choice["index"]] = found.get(choice["index"], "") + text
    return found


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["<th", "ink>hm", "</thi", "nk>", "\n4", "2"], "42"),
        (["no ", "reasoning"], "no reasoning"),
        (["a</think>b"], "b"),
        (["", "a</think>", ""], ""),
    ],
)
def test_reasoning_split_over_the_pieces_of_a_stream_is_taken_out(
    behind: Behind, client: Client, recorder: Recorder, pieces: list[str], expected: str
) -> None:
    proxy = behind(("reasoning", {}))
    recorder.content_type = "text/event-stream"
    last = 'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}'
    recorder.body = _stream(": comment", *_events(*pieces), last)
    reply = client.post(proxy.url)
    assert reply.headers["Content-Type"] == "text/event-stream"
    assert _contents(reply.body) == {0: expected}
    assert reply.body.startswith(b": comment\n\n")
    assert b'"finish_reason": "stop"' in reply.body
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_the_choices_of_a_stream_are_kept_apart(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("reasoning", {}))
    recorder.content_type = "text/event-stream"
    first, second = _events("a</think>", "b"), _events("c", "</think>d", index=1)
    recorder.body = _stream(first[0], second[0], first[1], second[1])
    assert _contents(client.post(proxy.url).body) == {0: "b", 1: "d"}


def test_a_stream_that_is_not_json_is_cut(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("reasoning", {}))
    recorder.content_type = "text/event-stream"
    recorder.body = _stream("data: {broken")
    with pytest.raises(http.client.IncompleteRead):
        client.post(proxy.url)
    stats = proxy.stats()
    assert (stats.answered, stats.connection_failures, stats.interceptor_failures) == (0, 1, 0)
    assert stats.errors == {"unreadable_answer": 1}


def test_a_packed_stream_that_cannot_be_unpacked_is_the_endpoints_failure(client: Client, serve: Serve) -> None:
    async def respond(_request: web.Request) -> web.Response:
        return web.Response(body=b"x", headers={"Content-Type": "text/event-stream", "Content-Encoding": "br"})

    upstream = Upstream(f"{serve(respond)}/v1/chat/completions")
    with running_proxy(upstream, [InterceptorConfig(name="reasoning")]) as proxy:
        reply = client.post(proxy.url)
        stats = proxy.stats()
    assert (reply.status, reply.json()["error"]["code"]) == (502, "unreadable_answer")
    assert (stats.answered, stats.connection_failures, stats.interceptor_failures) == (0, 1, 0)


def test_a_stream_that_breaks_off_is_cut_for_the_harness_too(client: Client) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}
    chain = [InterceptorConfig(name="reasoning")]
    with (
        FakeEndpoint("one two three four", faults=["reset_mid_body"]) as endpoint,
        running_proxy(Upstream(endpoint.chat_url), chain) as proxy,
    ):
        with pytest.raises(http.client.IncompleteRead):
            client.post(proxy.url, body)
        stats = proxy.stats()
    assert (stats.answered, stats.connection_failures) == (0, 1)


def test_events_flow_while_their_text_is_held(serve: Serve) -> None:
    """The harness sees that the model is at work; the text comes as soon as no reasoning can follow."""
    go_on = threading.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        for event in _events("<think>", "hm", "</think>4"):
            await reply.write(f"{event}\n\n".encode())
        await asyncio.to_thread(go_on.wait, 30)
        end = 'data: {"choices": [{"index": 0, "delta": {"content": "2"}, "finish_reason": "stop"}]}'
        await reply.write(f"{end}\n\ndata: [DONE]\n\n".encode())
        return reply

    chain = [InterceptorConfig(name="reasoning")]
    with running_proxy(Upstream(f"{serve(respond)}/v1/chat/completions"), chain) as proxy:
        parts = urlsplit(proxy.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", parts.path, body=b"{}")
            answer = connection.getresponse()
            early = b"".join(answer.readline() for _ in range(6))
            go_on.set()
            late = answer.read()
    assert early.count(b"data: ") == 3
    assert _contents(early) == {0: ""}
    lines = [json.loads(line[6:]) for line in late.split(b"\n") if line.startswith(b"data: {")]
    assert [line["choices"][0]["finish_reason"] for line in lines] == [None, "stop"]
    assert [line["choices"][0]["delta"]["content"] for line in lines] == ["42", ""]


def test_content_flows_once_reasoning_has_a_field_of_its_own(
    behind: Behind, client: Client, recorder: Recorder
) -> None:
    proxy = behind(("reasoning", {}))
    recorder.content_type = "text/event-stream"
    reasoning = 'data: {"choices": [{"index": 0, "delta": {"content": null, "reasoning": "hm"}}]}'
    recorder.body = _stream(reasoning, *_events("a </think>", " b"))
    assert client.post(proxy.url).body == recorder.body


_TEXT = st.lists(st.sampled_from(["<think>", "</think>", "<", "</th", "ink>", "a", " b", "\n", "\u00e9"])).map("".join)
_RULES = st.builds(
    ReasoningRules,
    end=st.just("</think>"),
    start=st.sampled_from(["<think>", None]),
    removes=st.booleans(),
    migrates=st.booleans(),
    keeps_unfinished=st.booleans(),
).filter(lambda rules: not rules.changes_nothing)


@st.composite
def _deltas(draw: st.DrawFn) -> list[dict[str, Any]]:
    name = draw(st.sampled_from(["reasoning_content", "reasoning"]))
    piece = st.fixed_dictionaries({}, optional={"content": _TEXT, name: _TEXT})
    return draw(st.lists(piece, max_size=8))


@given(deltas=_deltas(), rules=_RULES, sizes=st.lists(st.integers(1, 40), min_size=1), has_done=st.booleans())
def test_any_stream_comes_to_what_the_whole_answer_comes_to(
    deltas: list[dict[str, Any]], rules: ReasoningRules, sizes: list[int], *, has_done: bool
) -> None:
    events = [json.dumps({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    if has_done:
        events += [json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), "[DONE]"]
    stream = "".join(f"data: {event}\n\n" for event in events).encode()
    told: list[Reasoned] = []
    rewriter = ReasoningRewriter(rules, told.append)
    out, rest = b"", stream
    for size in itertools.cycle(sizes):
        out += rewriter.feed(rest[:size])
        rest = rest[size:]
        if not rest:
            break
    out += rewriter.finish()
    assert rewriter.is_clear

    content = "".join(delta.get("content", "") for delta in deltas)
    fields = [delta[name] for delta in deltas for name in ("reasoning_content", "reasoning") if name in delta]
    field = "".join(fields) if fields else None
    has_content = any("content" in delta for delta in deltas)
    assert _contents(out).get(0, "") == (rules.updated(content, field) if has_content or field else "")
    expected = [rules.reasoned(content, field, has_calls=False)] if rules.removes and has_content else []
    assert told == expected


def test_reasoning_is_counted(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("reasoning", {}))
    usage = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 6}}
    for message in (
        _assistant("<think>one two</think>\n\nthree"),
        _assistant("<think>one two three"),
        _assistant("four", reasoning_content="one"),
        _assistant("no reasoning here"),
    ):
        recorder.body = json.dumps({"choices": [{"message": message}], "usage": usage}).encode()
        client.post(proxy.url)
    recorder.content_type = "text/event-stream"
    recorder.body = _stream(*_events("five six", "</think>", "seven"))
    client.post(proxy.url)
    counted = proxy.stats().reasoning
    assert counted is not None
    assert {name: counted[name] for name in COUNTS} == {
        "total_responses": 5,
        "responses_with_reasoning": 4,
        "reasoning_started_count": 4,
        "reasoning_finished_count": 3,
        "reasoning_unfinished_count": 1,
    }
    assert counted["reasoning_finished_ratio"] == 0.75
    assert (counted["total_reasoning_words"], counted["avg_reasoning_words"]) == (8, 1.6)
    assert (counted["total_original_content_words"], counted["max_original_content_words"]) == (12, 3)
    assert counted["total_updated_content_words"] == 9
    assert (counted["total_reasoning_tokens"], counted["avg_updated_content_tokens"]) == (24, 3)


def test_what_nobody_can_tell_is_not_counted_as_no_reasoning(
    behind: Behind, client: Client, recorder: Recorder
) -> None:
    proxy = behind(("reasoning", {"start_reasoning_token": None}))
    recorder.body = _answer(_assistant("an answer, or reasoning that never ends"))
    client.post(proxy.url)
    counted = proxy.stats().reasoning
    assert counted is not None
    assert (counted["total_responses"], counted["reasoning_started_count"]) == (1, 0)
    assert counted["avg_reasoning_words"] is None


def test_statistics_can_be_switched_off(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("reasoning", {"enable_reasoning_tracking": False}))
    recorder.body = _answer(_assistant("a</think>b"))
    client.post(proxy.url)
    assert proxy.stats().reasoning is None


def test_statistics_are_written_where_it_is_said(
    behind: Behind, client: Client, recorder: Recorder, tmp_path: Path
) -> None:
    folder = tmp_path / "reasoning_stats_cache"
    proxy = behind(("reasoning", {"cache_dir": str(folder)}))
    recorder.body = _answer(_assistant("a</think>b"))
    client.post(proxy.url)
    proxy.stop()
    assert json.loads((folder / "reasoning_stats.json").read_text())["total_responses"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_the_store_keeps_what_the_endpoint_sent(client: Client, tmp_path: Path, *, stream: bool) -> None:
    chain: list[Link] = [("caching", {"reuse_cached_responses": True}), ("reasoning", {})]
    replies, counted = [], []
    with FakeEndpoint("<think>one two</think>three four") as endpoint:
        for _ in range(2):
            with chain_before(endpoint.chat_url, *chain, options=ProxyOptions(output_dir=tmp_path)) as proxy:
                replies.append(client.post(proxy.url, chat("?", stream=stream)))
                stats = proxy.stats()
            assert stats.reasoning is not None
            counted.append((stats.cached, stats.reasoning["total_responses"], stats.reasoning["total_reasoning_words"]))
        asked = len(endpoint.requests)
    texts = [
        _contents(reply.body)[0] if stream else reply.json()["choices"][0]["message"]["content"] for reply in replies
    ]
    assert (asked, texts) == (1, ["three four", "three four"])
    # Answers from the store were counted when they came.
    assert counted == [(0, 1, 2), (1, 0, 0)]
    with StoreReader(tmp_path / "cache" / "requests.db") as reader:
        (record,) = [record for record in reader.records() if record.source == "endpoint"]
        stored = reader.texts(record.id).response
    assert b"think" in stored
    if not stream:
        assert b"one two" in stored
