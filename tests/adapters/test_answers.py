from __future__ import annotations

import json
from typing import Any

import pytest

from nemo_evaluator.adapters.answers import EventStreamReader, facts_of


def _stream(*events: dict[str, Any] | str, end: str = "\n\n") -> bytes:
    texts = [event if isinstance(event, str) else f"data: {json.dumps(event)}" for event in events]
    return end.join([*texts, ""]).encode()


def _choice(**values: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None, **values}]}


WHOLE = _stream(
    ": a comment",
    _choice(),
    _choice(delta={"content": 'says "finish_reason": "length" \u00e9'}),
    _choice(delta={"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]}),
    _choice(delta={"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
    _choice(finish_reason="stop"),
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}},
    "data: [DONE]",
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_a_stream_is_read_alike_wherever_its_pieces_are_cut(size: int) -> None:
    reader = EventStreamReader()
    for start in range(0, len(WHOLE), size):
        reader.feed(WHOLE[start : start + size])
    reader.finish()
    facts = reader.facts
    assert (facts.prompt_tokens, facts.completion_tokens, facts.total_tokens) == (7, 3, 10)
    assert facts.finish_reasons == ["stop"]
    assert facts.tool_calls == 1
    assert not reader.is_cut


@pytest.mark.parametrize(
    ("stream", "is_cut"),
    [
        (_stream(_choice(), "data: [DONE]"), False),
        (_stream(_choice(), _choice(finish_reason="length")), False),
        (_stream(_choice(), _choice()), True),
        (_stream(_choice(), "data: [DONE]", end="\r\n\r\n"), False),
        (_stream(_choice(), "data:[DONE]").rstrip(b"\n"), False),
        # Streams of other kinds have their own ends.
        (_stream({"type": "response.completed"}), False),
        (b"", False),
    ],
)
def test_a_stream_of_choices_without_an_end_is_cut(stream: bytes, is_cut: bool) -> None:  # noqa: FBT001  a table's column
    reader = EventStreamReader()
    reader.feed(stream)
    reader.finish()
    assert reader.is_cut is is_cut


def test_all_choices_of_an_answer_count() -> None:
    answer = {
        "choices": [
            {"finish_reason": "stop", "message": {"content": "a"}},
            {"finish_reason": "length", "message": {"tool_calls": [{"id": "1", "function": {"name": "f"}}]}},
            {"finish_reason": "function_call", "message": {"function_call": {"name": "g", "arguments": "{}"}}},
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5},
    }
    facts = facts_of(json.dumps(answer).encode())
    assert facts.finish_reasons == ["stop", "length", "function_call"]
    assert (facts.tool_calls, facts.function_calls) == (1, 1)
    assert (facts.prompt_tokens, facts.completion_tokens) == (5, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b'{"choices": null, "usage": null}',
        b'{"choices": [null, "x", {}], "usage": []}',
        b'{"choices": [{"message": {"tool_calls": [null, {"function": 1}]}}]}',
        b'{"usage": {"prompt_tokens": -1, "completion_tokens": true, "total_tokens": "9"}}',
        b"[" * 100_000,
        b'{"usage": {"prompt_tokens": NaN}}',
    ],
)
def test_answers_of_another_shape_say_nothing_and_break_nothing(body: bytes) -> None:
    facts = facts_of(body)
    assert (facts.prompt_tokens, facts.completion_tokens, facts.total_tokens) == (None, None, None)
    assert (facts.finish_reasons, facts.tool_calls) == ([], 0)


@pytest.mark.parametrize("ended", [(), (0,), (1,), (0, 2), (0, 1), (0, 1, 2)])
def test_a_stream_is_whole_when_each_of_its_choices_has_ended(ended: tuple[int, ...]) -> None:
    reader = EventStreamReader()
    for index in (0, 0, 1, 2, 1):
        reader.feed(_stream({"choices": [{"index": index, "delta": {"content": "x"}}]}))
    for index in ended:
        reader.feed(_stream({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}))
    reader.finish()
    assert reader.is_cut == (len(ended) < 3)


def test_a_line_without_an_end_costs_no_more_than_its_length() -> None:
    reader = EventStreamReader()
    reader.feed(_stream(_choice()))
    for _ in range(20_000):
        reader.feed(b"x" * 1000)
    reader.feed(b"\n" + _stream(_choice(finish_reason="stop")))
    reader.finish()
    assert not reader.is_cut
