"""One exchange as an OpenTelemetry span.

The names are those of the semantic conventions for generative AI clients
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/, conventions 1.41), and for repeated HTTP requests.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from nemo_evaluator.adapters.facts import AnswerFacts, text_of
from nemo_evaluator.adapters.messages import TooLargeError, decode
from nemo_evaluator.adapters.reasoning_text import choices_of
from nemo_evaluator.adapters.usable import parse_json

Attribute = str | bool | int | float | list[str]

_OPERATIONS = (
    ("/chat/completions", "chat"),
    ("/completions", "text_completion"),
    ("/embeddings", "embeddings"),
    ("/responses", "chat"),
)
_REQUEST_NUMBERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
_USAGE = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
}
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_LARGEST_CONTENT = 16 * 1024 * 1024
_FIRST_ERROR = 400


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span stands in its trace (https://www.w3.org/TR/trace-context/)."""

    trace_id: int
    span_id: int
    parent_id: int | None = None

    @property
    def header(self) -> str:
        """The value of `traceparent` for what happens within it."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"


@dataclass(slots=True, kw_only=True)
class Finished:
    """An exchange that is over, with what a span tells of it; bodies are None when their content is not to be told.

    Times are in nanoseconds since the epoch, `failure` is what the exchange failed with: a code, or nothing.
    """

    place: Place
    url: str
    provider: str
    upstream: str
    sample: str
    request_id: str
    attempt: int
    begin: int
    end: int
    first_byte_seconds: float
    status: int
    is_usable: bool
    failure: str | None
    is_stream: bool
    facts: AnswerFacts
    asked: dict[str, Any] = field(default_factory=dict)
    request_body: bytes | None = None
    response_body: bytes | None = None
    coding: str = ""


def parent_of(traceparent: str) -> tuple[int, int] | None:
    """The trace and the span that a `traceparent` header names; None when it is not of a known form."""
    found = _TRACEPARENT.fullmatch(traceparent.strip())
    if found is None:
        return None
    trace_id, span_id = int(found[1], 16), int(found[2], 16)
    return (trace_id, span_id) if trace_id and span_id else None


def asked_of(document: Any) -> dict[str, Any]:
    """What a request asks for, without its content."""
    if not isinstance(document, dict):
        return {}
    kept = ("model", "stop", "n", "stream", *_REQUEST_NUMBERS)
    return {name: document[name] for name in kept if document.get(name) is not None}


def name_of(finished: Finished) -> str:
    """The span's name."""
    model = finished.asked.get("model")
    return f"{_operation(finished.url)} {model}" if isinstance(model, str) else _operation(finished.url)


def error_of(finished: Finished) -> str | None:
    """The class of error that the exchange ended with; None when it went well."""
    if finished.status >= _FIRST_ERROR:
        return str(finished.status)
    if finished.failure is not None:
        return finished.failure
    return None if finished.is_usable else "unusable_answer"


def attributes_of(finished: Finished) -> dict[str, Attribute]:
    """The span's attributes."""
    parts = urlsplit(finished.url)
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": _operation(finished.url),
        "gen_ai.provider.name": finished.provider,
        "gen_ai.system": finished.provider,
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        "nemo_evaluator.upstream": finished.upstream,
        "nemo_evaluator.sample": finished.sample,
        "nemo_evaluator.request_id": finished.request_id,
        **_asked(finished.asked),
        **_answered(finished.facts),
    }
    if finished.status:
        attributes["http.response.status_code"] = finished.status
    if finished.attempt > 1:
        attributes["http.request.resend_count"] = finished.attempt - 1
    if finished.is_stream:
        attributes["gen_ai.request.stream"] = True
        attributes["gen_ai.response.time_to_first_chunk"] = finished.first_byte_seconds
    if (error := error_of(finished)) is not None:
        attributes["error.type"] = error
    if finished.request_body is not None:
        attributes |= _content(finished)
    return attributes


def _operation(url: str) -> str:
    path = urlsplit(url).path.rstrip("/")
    return next((name for suffix, name in _OPERATIONS if path.endswith(suffix)), "chat")


def _asked(asked: dict[str, Any]) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    if isinstance(asked.get("model"), str):
        attributes["gen_ai.request.model"] = asked["model"]
    for name, attribute in _REQUEST_NUMBERS.items():
        value = asked.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            attributes[attribute] = value
    stop = asked.get("stop")
    if isinstance(stop, str):
        attributes["gen_ai.request.stop_sequences"] = [stop]
    elif isinstance(stop, list):
        attributes["gen_ai.request.stop_sequences"] = [text for text in stop if isinstance(text, str)]
    if isinstance(asked.get("n"), int) and asked["n"] != 1:
        attributes["gen_ai.request.choice.count"] = asked["n"]
    return attributes


def _answered(facts: AnswerFacts) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {}
    if facts.model is not None:
        attributes["gen_ai.response.model"] = facts.model
    if facts.finish_reasons:
        attributes["gen_ai.response.finish_reasons"] = list(facts.finish_reasons)
    for name, attribute in _USAGE.items():
        count = getattr(facts, name)
        if count is not None:
            attributes[attribute] = count
    return attributes


def _content(finished: Finished) -> dict[str, Attribute]:
    """The texts, which are told only when that is asked for."""
    attributes: dict[str, Attribute] = {}
    document = _parsed(finished.request_body or b"")
    asked = document.get("messages", document.get("prompt", document.get("input"))) if document else None
    messages = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    told = [_message(message) for message in messages if isinstance(message, dict)]
    if told:
        attributes["gen_ai.input.messages"] = json.dumps(told, ensure_ascii=False)
    try:
        body = decode(finished.response_body or b"", finished.coding, limit=_LARGEST_CONTENT)
    except (ValueError, TooLargeError):
        return attributes
    texts = _texts(body)
    if texts:
        output = [{"role": "assistant", "parts": [{"type": "text", "content": text}]} for text in texts]
        attributes["gen_ai.output.messages"] = json.dumps(output, ensure_ascii=False)
    return attributes


def _message(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return {"role": str(message.get("role", "user")), "parts": [{"type": "text", "content": text}]}


def _texts(body: bytes) -> list[str]:
    """The text of each choice of an answer, or of the events of a stream together."""
    texts: dict[int, str] = {}
    pieces = [line[5:] for line in body.split(b"\n") if line.startswith(b"data:")] or [body]
    for piece in pieces:
        for number, choice in enumerate(choices_of(_parsed(piece))):
            index = choice.get("index")
            key = index if isinstance(index, int) else number
            texts[key] = texts.get(key, "") + text_of(choice)
    return list(texts.values())


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        document = parse_json(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
