"""The requests of a run, from its store: summed up all, shown few."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nemo_evaluator.adapters.messages import MODEL
from nemo_evaluator.adapters.store.record import Record, Selection, Texts
from nemo_evaluator.core.report.histogram import Histogram, histogram
from nemo_evaluator.core.report.text import number, shown
from nemo_evaluator.core.report.timeline import Timeline
from nemo_evaluator.errors import DataError

MAX_SHOWN = 100
MAX_TEXT = 6_000
MAX_OF_SAMPLE = 4
"""Requests of one sample that its entry names; a conversation of many turns has the rest in the store."""
_MAX_BRIEF = 100
_KINDS = ("failed", "notable", "slow", "answered")
_NOTABLE = {"length": "truncated", "content_filter": "refused"}
_SLOWEST = 25


class Reads(Protocol):
    """What is needed of a store: its records in order, and the texts of one."""

    def records(
        self, selection: Selection, *, limit: int | None = None, newest_first: bool = False
    ) -> Iterator[Record]:
        """The records that `selection` means."""
        ...

    def texts(self, id: int) -> Texts:  # noqa: A002  the word for it
        """The texts of one record."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRequest:
    """One request as the page shows it; all text is fit to be shown."""

    id: int
    kind: str
    verdict: str
    sample: str
    brief: str
    facts: tuple[tuple[str, str], ...]
    texts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The requests of a run.

    Attributes:
        count: all records of the store.
        latency: milliseconds, over the usable answers.
        prompt_tokens: of one request, over those that report them.
        completion_tokens: likewise.
        timeline: what happened when.
        finish_reasons: how often each was given.
        outcomes: how often each kind of outcome was; `answered` is the good one.
        cost: sum over those that have one; None without a price table.
        currency: what it is in; empty when that is not known.
        shown: failed and odd ones first.
    """

    count: int
    latency: Histogram | None
    prompt_tokens: Histogram | None
    completion_tokens: Histogram | None
    timeline: Timeline
    finish_reasons: Mapping[str, int]
    outcomes: Mapping[str, int]
    cost: float | None
    currency: str
    shown: tuple[ShownRequest, ...]

    def as_data(self) -> dict[str, Any]:
        """The sums, for `report.json`."""
        return {
            "count": self.count,
            "outcomes": dict(self.outcomes),
            "finish_reasons": dict(self.finish_reasons),
            "cost": self.cost,
            "currency": self.currency or None,
            "shown_on_page": len(self.shown),
        }


@dataclass(slots=True)
class _Sums:
    most: int
    latencies: array[float] = field(default_factory=lambda: array("d"))
    prompts: array[float] = field(default_factory=lambda: array("d"))
    completions: array[float] = field(default_factory=lambda: array("d"))
    finish_reasons: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    cost: float | None = None
    kept: dict[str, list[Record]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})

    def take(self, record: Record) -> None:
        self.outcomes[_outcome(record)] += 1
        if record.is_usable:
            self.latencies.append(1000 * record.seconds)
        for tokens, values in ((record.prompt_tokens, self.prompts), (record.completion_tokens, self.completions)):
            if tokens is not None:
                values.append(tokens)
        if record.finish_reason is not None:
            self.finish_reasons[record.finish_reason] += 1
        if record.cost is not None and math.isfinite(record.cost):
            self.cost = (self.cost or 0.0) + record.cost
        self.keep(record)

    def keep(self, record: Record) -> None:
        kind = _kind(record)
        if len(self.kept[kind]) < self.most:
            self.kept[kind].append(record)
        if kind == "answered":
            slowest = self.kept["slow"]
            slowest.append(record)
            if len(slowest) > 2 * _SLOWEST:
                slowest.sort(key=lambda one: -one.seconds)
                del slowest[_SLOWEST:]

    def chosen(self) -> list[Record]:
        """Some of each kind, each record once."""
        self.kept["slow"] = sorted(self.kept["slow"], key=lambda one: -one.seconds)[:_SLOWEST]
        found: dict[int, Record] = {}
        share = self.most // len(_KINDS)
        for kind in _KINDS:
            found |= {record.id: record for record in self.kept[kind][:share]}
        for kind in _KINDS:
            for record in self.kept[kind]:
                if len(found) >= self.most:
                    break
                found.setdefault(record.id, record)
        order = {kind: place for place, kind in enumerate(_KINDS)}
        return sorted(found.values(), key=lambda record: (order[_kind(record)], record.id))


def collect_requests(
    reader: Reads, *, most: int = MAX_SHOWN, starts: tuple[int, ...] | None = None, currency: str = ""
) -> Requests | None:
    """The requests of a run, read once; None when there are none.

    Args:
        reader: the store.
        most: how many of them are shown.
        starts: the starts of the store that are the run's; None when all are.
        currency: what costs are in; empty when that is not known.
    """
    sums, timeline = _Sums(most), Timeline()
    count = 0
    for record in reader.records(Selection(starts=starts)):
        count += 1
        sums.take(record)
        timeline.add(
            record.start,
            record.time + record.seconds,
            is_usable=record.is_usable,
            tokens=record.completion_tokens or 0,
            cost=record.cost if record.cost is not None and math.isfinite(record.cost) else 0.0,
        )
    if not count:
        return None
    return Requests(
        count=count,
        latency=histogram(sums.latencies),
        prompt_tokens=histogram(sums.prompts),
        completion_tokens=histogram(sums.completions),
        timeline=timeline,
        finish_reasons=dict(sums.finish_reasons.most_common()),
        outcomes=dict(sums.outcomes.most_common()),
        cost=sums.cost,
        currency=currency,
        shown=tuple(_as_shown(record, _texts(reader, record.id), currency=currency) for record in sums.chosen()),
    )


def requests_of(
    reader: Reads, samples: Iterable[str], *, starts: tuple[int, ...] | None = None
) -> dict[str, list[tuple[int, str]]]:
    """For each of `samples` the ids of the last requests to the model, each with what was asked; only those that have
    any. `starts` as for `collect_requests`.
    """  # noqa: D205  one sentence, too long for one line
    found = {}
    for sample in samples:
        # What a judge was asked about the sample is another question.
        selection = Selection(sample=sample, upstream=MODEL, starts=starts)
        records = reader.records(selection, limit=MAX_OF_SAMPLE, newest_first=True)
        asked = [(record.id, _asked(_texts(reader, record.id).request)) for record in records]
        if asked:
            found[sample] = asked[::-1]
    return found


def _texts(reader: Reads, id_: int) -> Texts:
    try:
        return reader.texts(id_)
    except DataError:
        # One damaged row is no reason to show none of the others.
        return Texts(request=b"", response=b"", response_headers=())


def _kind(record: Record) -> str:
    if not record.is_usable:
        return "failed"
    return "notable" if record.finish_reason in _NOTABLE else "answered"


def _outcome(record: Record) -> str:
    if record.is_usable:
        return _NOTABLE.get(record.finish_reason or "", "answered")
    if not record.status:
        return "no answer"
    return "not usable" if 200 <= record.status < 300 else f"HTTP {record.status}"  # noqa: PLR2004  success


def _as_shown(record: Record, texts: Texts, *, currency: str) -> ShownRequest:
    asked, answered = _asked(texts.request), _answered(texts.response)
    tokens = [
        f"{count} {name}"
        for count, name in (
            (record.prompt_tokens, "of the prompt"),
            (record.completion_tokens, "of the answer"),
            (record.reasoning_tokens, "of it reasoning"),
        )
        if count is not None
    ]
    facts = {
        "status": str(record.status) if record.status else "none",
        "problem": shown(record.problem, 1000),
        "sample": shown(record.sample, 300),
        "endpoint": f"{record.upstream}, {record.address}",
        "finish reason": shown(record.finish_reason, 100),
        "tokens": ", ".join(tokens),
        "latency": f"{number(record.seconds)} s" if record.seconds else "",
        "attempts": str(record.attempt) if record.attempt > 1 else "",
        "cost": f"{number(record.cost)} {currency}".strip() if record.cost is not None else "",
    }
    return ShownRequest(
        id=record.id,
        kind=_kind(record),
        verdict=_outcome(record),
        sample=shown(record.sample, 300),
        brief=shown(record.problem or answered, _MAX_BRIEF).replace("\n", " "),
        facts=tuple((name, value) for name, value in facts.items() if value),
        texts=(("asked", asked), ("answered", answered)),
    )


def _asked(body: bytes) -> str:
    """What a request asks, as people read it: the conversation, else the prompt, else all of it."""
    document = _json(body)
    if isinstance(document, dict):
        messages = document.get("messages")
        if isinstance(messages, list) and messages:
            return shown("\n\n".join(_message(message) for message in messages), MAX_TEXT)
        for key in ("prompt", "input"):
            if document.get(key):
                return shown(document[key], MAX_TEXT)
    return shown(body.decode(errors="replace"), MAX_TEXT)


def _message(message: Any) -> str:
    if not isinstance(message, dict):
        return str(message)
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return f"[{message.get('role', '?')}] {text}"


def _answered(body: bytes) -> str:
    """What an answer says: its text, else all of it."""
    document = _json(body)
    choices = document.get("choices") if isinstance(document, dict) else None
    if isinstance(choices, list):
        texts = [_choice(choice) for choice in choices if isinstance(choice, dict)]
        if any(texts):
            return shown("\n\n".join(text for text in texts if text), MAX_TEXT)
    return shown(body.decode(errors="replace"), MAX_TEXT)


def _choice(choice: Mapping[str, Any]) -> str:
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else choice.get("text")
    return content if isinstance(content, str) else ""


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
