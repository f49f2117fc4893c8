from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from nemo_evaluator.adapters.messages import Request
from nemo_evaluator.adapters.sample import is_named, sample_of


def _request(body: bytes | dict[str, Any]) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", "http://host/v1/chat/completions", CIMultiDict(), data)


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(data: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


QUESTION = {"messages": [_user("What?")]}


def test_the_harness_knows_best() -> None:
    request = _request(QUESTION)
    request.sample = "s-17"
    assert sample_of(request) == "s-17"
    assert is_named("s-17")


@pytest.mark.parametrize(
    "body",
    [
        {**QUESTION, "model": "m", "temperature": 0.7, "seed": 9, "max_tokens": 3},
        {"messages": [{"role": "system", "content": "Be brief."}, _user("What?")]},
        {"messages": [_user("What?"), {"role": "assistant", "content": "This."}]},
        {"messages": [_user([_text("What?")])]},
        {"input": [_user("What?")]},
        {"prompt": "What?"},
        {"prompt": ["What?"]},
        {"input": "What?"},
    ],
)
def test_settings_do_not_make_another_sample(body: dict[str, Any]) -> None:
    sample = sample_of(_request(body))
    assert sample == sample_of(_request(QUESTION))
    assert not is_named(sample)
    kind, digits = sample.split(":")
    assert (kind, len(digits), int(digits, 16) > 0) == ("content", 16, True)


def test_what_the_user_asks_makes_another_sample() -> None:
    bodies: list[bytes | dict[str, Any]] = [
        QUESTION,
        {"messages": [_user("Who?")]},
        {"messages": [_user("What?"), _user("Who?")]},
        {"messages": [_user("Wh"), _user("at?")]},
        {"messages": [_user([_text("What?"), _image("AAAA")])]},
        {"messages": [_user([_text("What?"), _image("BBBB")])]},
        {"prompt": [1, 2]},
        {"prompt": [12]},
        {"messages": []},
        b"What?",
        b"\xff",
        b"[1]",
    ]
    assert len({sample_of(_request(body)) for body in bodies}) == len(bodies)


@pytest.mark.parametrize("body", [b'{"input": NaN}', b'{"prompt": "\\ud800"}', b"", b'{"messages": [null, 3]}'])
def test_odd_requests_have_a_sample_too(body: bytes) -> None:
    assert sample_of(_request(body)) == sample_of(_request(body))
