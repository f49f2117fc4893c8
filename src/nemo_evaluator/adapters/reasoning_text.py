"""What part of a message is its reasoning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nemo_evaluator.adapters.reasoning_counts import Reasoned

FIELDS = ("reasoning_content", "reasoning")
"""In which endpoints that take reasoning out of the content put it; the first one that is there counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningRules:
    """What becomes of a message's content.

    Attributes:
        end: at which reasoning ends.
        start: at which it begins; None when the model does not write one.
        removes: whether reasoning is taken out of the content. Otherwise the content stays.
        migrates: where nothing is removed: whether reasoning in a field of its own is put before the content.
        keeps_unfinished: whether content without an end token stays as it is, rather than become empty.
    """

    end: str
    start: str | None
    removes: bool = True
    migrates: bool = False
    keeps_unfinished: bool = True

    @property
    def changes_nothing(self) -> bool:
        """Whether all messages stay as they are."""
        return not (self.removes or self.migrates)

    def updated(self, content: str, field: str | None) -> str:
        """The content as the harness sees it.

        Everything up to the last end token is reasoning, wherever it began, since nested and repeated reasoning ends
        there, and many models are given the start token by their template and do not write it.

        Args:
            content: as the endpoint sent it.
            field: the reasoning in a field of its own; None when there is no such field.
        """
        if not self.removes:
            return f"{self.start or ''}{field}{self.end}{content}" if self.migrates and field else content
        if field is not None:
            return content
        _, mark, rest = content.rpartition(self.end)
        if mark:
            return rest.strip("\n")
        return content if self.keeps_unfinished else ""

    def reasoned(self, content: str, field: str | None, *, has_calls: bool) -> Reasoned:
        """What is counted about a message; `has_calls` tells whether it calls tools."""
        updated = self.updated(content, field)
        if field is not None:
            ends = bool(content.strip()) or has_calls
            return Reasoned(bool(field.strip()), ends, field, content, updated)
        reasoning, mark, _ = content.rpartition(self.end)
        if mark:
            text = _without(reasoning, (self.start, self.end))
            return Reasoned(started=True, finished=True, reasoning=text, original=content, updated=updated)
        if self.start is None:
            return Reasoned(started=None, finished=False, reasoning="", original=content, updated=updated)
        before, mark, begun = content.partition(self.start)
        # A start token after the beginning of an answer is part of what the answer talks about.
        started = bool(mark) and not before.strip()
        text = _without(begun, (self.start,)) if started else ""
        return Reasoned(started=started, finished=False, reasoning=text, original=content, updated=updated)


def field_of(message: Mapping[str, Any]) -> str | None:
    """The reasoning that a message has in a field of its own, as text; None when there is no such field."""
    found = next((message[name] for name in FIELDS if message.get(name) is not None), None)
    return found if found is None or isinstance(found, str) else str(found)


def is_assistant(message: Any) -> bool:
    """Whether it is a message of the model."""
    return isinstance(message, dict) and message.get("role", "assistant") in ("assistant", None)


def choices_of(document: Any) -> list[dict[str, Any]]:
    """The choices of an answer or event; none when it has another shape."""
    choices = document.get("choices") if isinstance(document, dict) else None
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _without(text: str, marks: Iterable[str | None]) -> str:
    for mark in marks:
        if mark:
            text = text.replace(mark, " ")
    return text
