"""What one answer says about itself: tokens, finish reasons, tool calls, and whether it says anything at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

THINKING = "<think>"
THOUGHT = "</think>"
"""Marks of reasoning in the text, as most models with open weights write them."""

_INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""Why an answer of the Responses API is incomplete, in the words of chat completions."""


@dataclass(slots=True)
class AnswerFacts:
    """Facts about one answer, of chat or text completions, embeddings, or the Responses API.

    Attributes:
        prompt_tokens: None when the endpoint did not report it; likewise the other numbers of tokens.
        finish_reasons: of all choices that have one.
        tool_calls: calls of tools, over all choices.
        function_calls: calls in the older form, over all choices.
        reasoning_tokens: those of `completion_tokens` that were spent on reasoning.
        cached_tokens: those of `prompt_tokens` that the endpoint had in its prompt cache.
        model: which model the endpoint says has answered.
        choices: choices that were seen; the events of a stream count one by one.
        has_text: whether any choice has text that is not blank, reasoning aside, or audio, or a refusal in words.
        has_refusal: whether a message has the field `refusal`.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    finish_reasons: list[str] = field(default_factory=list)
    tool_calls: int = 0
    function_calls: int = 0
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    model: str | None = None
    choices: int = 0
    has_text: bool = False
    has_refusal: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it has choices, and all of them say and call nothing."""
        return bool(self.choices) and not (self.has_text or self.tool_calls or self.function_calls)

    @property
    def is_truncated(self) -> bool:
        """Whether a choice was cut at the most tokens allowed."""
        return "length" in self.finish_reasons

    @property
    def is_refused(self) -> bool:
        """Whether a choice was held back by a filter, or refused by the model in the field for that."""
        return self.has_refusal or "content_filter" in self.finish_reasons

    def add(self, document: Any, *, is_event: bool = False) -> None:
        """Take in an answer or one event of a stream; what has another shape is passed over.

        Args:
            document: the JSON.
            is_event: whether it is a piece of a stream, whose text cannot be judged by itself.
        """
        if not isinstance(document, dict):
            return
        # The last event of a stream of the Responses API carries the whole answer.
        if isinstance(document.get("response"), dict):
            document, is_event = document["response"], False
        if isinstance(document.get("usage"), dict):
            self._add_usage(document["usage"])
        if isinstance(document.get("model"), str):
            self.model = document["model"]
        for choice in _list(document.get("choices")):
            if isinstance(choice, dict):
                self._add_choice(choice, is_event=is_event)
        if isinstance(document.get("output"), list) and not is_event:
            self._add_output(document)

    def _add_usage(self, usage: dict[str, Any]) -> None:
        self.prompt_tokens = _count(usage, "prompt_tokens", "input_tokens", before=self.prompt_tokens)
        self.completion_tokens = _count(usage, "completion_tokens", "output_tokens", before=self.completion_tokens)
        self.total_tokens = _count(usage, "total_tokens", before=self.total_tokens)
        self.reasoning_tokens = _count(usage, "reasoning_tokens", before=self.reasoning_tokens)
        # The last name is that of Anthropic's interface.
        self.cached_tokens = _count(usage, "cached_tokens", "cache_read_input_tokens", before=self.cached_tokens)
        for name in ("completion_tokens_details", "output_tokens_details"):
            details = usage.get(name)
            if isinstance(details, dict):
                self.reasoning_tokens = _count(details, "reasoning_tokens", before=self.reasoning_tokens)
        for name in ("prompt_tokens_details", "input_tokens_details"):
            details = usage.get(name)
            if isinstance(details, dict):
                self.cached_tokens = _count(details, "cached_tokens", before=self.cached_tokens)

    def _add_choice(self, choice: dict[str, Any], *, is_event: bool) -> None:
        self.choices += 1
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.finish_reasons.append(reason)
        for key in ("message", "delta"):
            message = choice.get(key)
            if isinstance(message, dict):
                self.tool_calls += sum(map(_is_named, _list(message.get("tool_calls"))))
                self.function_calls += _is_named({"function": message.get("function_call")})
                if message.get("refusal"):
                    self.has_refusal = self.has_text = True
                if message.get("audio"):
                    self.has_text = True
        if not is_event and not self.has_text:
            self.has_text = says_something(text_of(choice))

    def _add_output(self, answer: dict[str, Any]) -> None:
        """Take in an answer of the Responses API."""
        self.choices += 1
        details = answer.get("incomplete_details")
        if isinstance(details, dict) and details.get("reason") in _INCOMPLETE:
            self.finish_reasons.append(_INCOMPLETE[details["reason"]])
        elif answer.get("status") == "completed":
            self.finish_reasons.append("stop")
        for item in answer["output"]:
            kind = item.get("type") if isinstance(item, dict) else None
            if kind == "message":
                parts = item.get("content")
                refuses = isinstance(parts, list) and any(
                    isinstance(part, dict) and "refusal" in part for part in parts
                )
                self.has_refusal = self.has_refusal or refuses
                self.has_text = self.has_text or refuses or says_something(_joined(parts))
            elif isinstance(kind, str) and kind.endswith("_call"):
                self.tool_calls += 1


def text_of(choice: dict[str, Any]) -> str:
    """The text of a choice of an answer, or of an event; empty when it has none."""
    for key in ("message", "delta"):
        message = choice.get(key)
        if isinstance(message, dict):
            return _joined(message.get("content"))
    return _joined(choice.get("text"))


def says_something(text: str) -> bool:
    """Whether a text is more than blanks and reasoning between the usual marks, ended or not."""
    _, mark, rest = text.rpartition(THOUGHT)
    if mark:
        return bool(rest.strip())
    begin = text.lstrip()
    return bool(begin) and not begin.startswith(THINKING)


def _joined(content: Any) -> str:
    """Content as text: a string, or a list of parts; a part that is no text counts as its type's name."""
    if isinstance(content, str):
        return content
    parts = [part for part in _list(content) if isinstance(part, dict)]
    return "".join(text if isinstance(text := part.get("text", part.get("type")), str) else "" for part in parts)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(counts: dict[str, Any], *names: str, before: int | None) -> int | None:
    """The first of `names` that holds a number of tokens; `before` when none does."""
    for name in names:
        value = counts.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return before


def _is_named(call: Any) -> bool:
    """Whether it is a call, or the first piece of a streamed one: only that names the function."""
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and bool(function.get("name"))
