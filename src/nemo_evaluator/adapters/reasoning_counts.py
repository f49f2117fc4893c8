"""How much the model reasoned, message by message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SIZES = (
    "reasoning_words",
    "original_content_words",
    "updated_content_words",
    "reasoning_tokens",
    "updated_content_tokens",
)
"""What is summed, averaged and compared, in the names of the compatible interface."""

COUNTS = (
    "total_responses",
    "responses_with_reasoning",
    "reasoning_started_count",
    "reasoning_finished_count",
    "reasoning_unfinished_count",
)


@dataclass(frozen=True, slots=True)
class Reasoned:
    """What one message held.

    Attributes:
        started: whether it reasons; None when that cannot be told: no start token is known, and no end token came.
        finished: whether its reasoning came to an end.
        reasoning: the reasoning.
        original: the content as the endpoint sent it.
        updated: the content as the harness sees it.
    """

    started: bool | None
    finished: bool
    reasoning: str
    original: str
    updated: str


class ReasoningCounts:
    """Adds up messages. Numbers of tokens come from the endpoint only, and are averaged over answers that have them."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTS, 0)
        self._sums = dict.fromkeys(SIZES, 0)
        self._maxima = dict.fromkeys(SIZES, 0)
        self._known = dict.fromkeys(SIZES, 0)

    @property
    def responses(self) -> int:
        """Messages so far."""
        return self._counts["total_responses"]

    def add(self, message: Reasoned) -> None:
        """Count one message."""
        counts = self._counts
        counts["total_responses"] += 1
        if message.started:
            counts["reasoning_started_count"] += 1
            counts["reasoning_finished_count" if message.finished else "reasoning_unfinished_count"] += 1
        if message.reasoning.strip():
            counts["responses_with_reasoning"] += 1
        if message.started is not None:
            self._size("reasoning_words", len(message.reasoning.split()))
        self._size("original_content_words", len(message.original.split()))
        self._size("updated_content_words", len(message.updated.split()))

    def add_tokens(self, *, reasoning: int | None, completion: int | None) -> None:
        """Count the tokens of one answer: those of its reasoning, and all that the model wrote."""
        if reasoning is not None:
            self._size("reasoning_tokens", reasoning)
            if completion is not None:
                self._size("updated_content_tokens", max(0, completion - reasoning))

    def _size(self, name: str, size: int) -> None:
        self._sums[name] += size
        self._maxima[name] = max(self._maxima[name], size)
        self._known[name] += 1

    def as_dict(self) -> dict[str, Any]:
        """The `reasoning` of `eval_factory_metrics.json`."""
        return with_means(
            {
                "description": "Reasoning of the model: messages, words counted at blanks, tokens where reported",
                **self._counts,
                **{f"total_{name}": self._sums[name] for name in SIZES},
                **{f"max_{name}": self._maxima[name] for name in SIZES},
                **{f"{name}_count": self._known[name] for name in SIZES},
            }
        )


def with_means(written: dict[str, Any]) -> dict[str, Any]:
    """`written` with the averages and the ratio that follow from its sums and counts; None where nothing was known."""
    started = written["reasoning_started_count"]
    written["reasoning_finished_ratio"] = round(written["reasoning_finished_count"] / started, 4) if started else None
    for name in SIZES:
        known = written[f"{name}_count"]
        written[f"avg_{name}"] = round(written[f"total_{name}"] / known, 2) if known else None
    return written
