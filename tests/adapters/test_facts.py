from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_evaluator.adapters.answers import EventStreamReader, facts_of
from nemo_evaluator.adapters.facts import AnswerFacts, says_something


def _facts(document: dict[str, Any]) -> AnswerFacts:
    return facts_of(json.dumps(document).encode())


def _message(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3, "reasoning_tokens": 2}, (5, 3, 2, None)),
        ({"completion_tokens_details": {"reasoning_tokens": 2}}, (None, None, 2, None)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, (5, None, None, 4)),
        (
            {
                "input_tokens": 5,
                "output_tokens": 3,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens_details": {"reasoning_tokens": 2},
            },
            (5, 3, 2, 4),
        ),
        ({"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 4}, (5, 3, None, 4)),
        ({"prompt_tokens": 5, "total_tokens": 5}, (5, None, None, None)),
        ({"completion_tokens_details": None, "prompt_tokens_details": [], "reasoning_tokens": "2"}, (None,) * 4),
    ],
)
def test_tokens_have_many_names(usage: dict[str, Any], expected: tuple[int | None, ...]) -> None:
    facts = _facts({"usage": usage, "model": "m-1"})
    found = (facts.prompt_tokens, facts.completion_tokens, facts.reasoning_tokens, facts.cached_tokens)
    assert (found, facts.model) == (expected, "m-1")


@pytest.mark.parametrize(
    ("answer", "is_empty"),
    [
        (_message(content="x"), False),
        (_message(content=""), True),
        (_message(content=" \n"), True),
        (_message(content=None), True),
        (_message(), True),
        (_message(content=None, reasoning_content="long thoughts"), True),
        (_message(content="<think>long thoughts</think>\n"), True),
        (_message(content="<think>long thoughts"), True),
        (_message(content="thoughts without a begin</think> "), True),
        (_message(content="<think>a</think>x"), False),
        (_message(content=[{"type": "text", "text": "x"}]), False),
        (_message(content=[{"type": "text", "text": ""}]), True),
        (_message(content=None, tool_calls=[{"id": "1", "function": {"name": "f"}}]), False),
        (_message(content=None, function_call={"name": "f"}), False),
        (_message(content=None, refusal="I will not"), False),
        (_message(content=None, audio={"data": "AAAA"}), False),
        ({"choices": [{"text": "x"}]}, False),
        ({"choices": [{"text": ""}]}, True),
        ({"choices": [{"text": ""}, {"text": "x"}]}, False),
        ({"data": [{"embedding": [0.5]}]}, False),
        ({"object": "response", "output": [{"type": "message", "content": [{"text": "x"}]}]}, False),
        ({"object": "response", "output": [{"type": "function_call", "name": "f"}]}, False),
        ({"object": "response", "output": [{"type": "reasoning", "summary": []}]}, True),
    ],
)
def test_an_answer_that_says_and_calls_nothing_is_empty(answer: dict[str, Any], *, is_empty: bool) -> None:
    assert _facts(answer).is_empty is is_empty


def test_refusals_and_cuts_are_told_apart() -> None:
    refused = _facts(_message(content=None, refusal="I will not"))
    filtered = _facts({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]})
    cut = _facts({"choices": [{"message": {"content": "and"}, "finish_reason": "length"}]})
    response = {"object": "response", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert [(f.is_refused, f.is_truncated) for f in (refused, filtered, cut)] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    assert _facts(response | {"output": []}).is_truncated


def _read(stream: bytes, size: int = 10_000) -> AnswerFacts:
    reader = EventStreamReader()
    for start in range(0, len(stream), size):
        reader.feed(stream[start : start + size])
    reader.finish()
    return reader.facts


def _events(*deltas: dict[str, Any]) -> bytes:
    events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


@given(
    pieces=st.lists(st.sampled_from(["<think>", "<", "think>", "</think>", "</", "a", "bc", " ", "\n"]), max_size=12),
    reasoning=st.booleans(),
)
def test_a_stream_is_empty_when_its_whole_text_says_nothing(pieces: list[str], *, reasoning: bool) -> None:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if reasoning:
        deltas.append({"reasoning_content": "hm"})
    facts = _read(_events(*deltas, *({"content": piece} for piece in pieces)))
    assert facts.is_empty is not says_something("".join(pieces))


def test_what_only_streams_have_is_read() -> None:
    answer = {
        "type": "response.completed",
        "response": {
            "model": "m",
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}],
            "usage": {"input_tokens": 5, "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 1}},
        },
    }
    events = [{"type": "response.created", "response": {"usage": None, "output": []}}, answer]
    facts = _read(b"".join(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n" for event in events))
    assert (facts.prompt_tokens, facts.completion_tokens, facts.reasoning_tokens) == (5, 3, 1)
    assert (facts.finish_reasons, facts.model, facts.is_empty) == (["stop"], "m", False)
    assert _read(_events({"refusal": "I "}, {"refusal": "will not"})).is_refused
