"""The samples of a run: read one after the other, counted all, kept few."""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from nemo_evaluator.adapters.sample_header import sample_header
from nemo_evaluator.core.report.text import number, shown
from nemo_evaluator.files import open_regular

FILE_NAME = "samples.jsonl"
MAX_SHOWN = 200
MAX_TEXT = 6_000
"""Characters of one answer, or of one other text, on the page."""
MAX_SHORT_TEXT = 300
MAX_BRIEF = 80
_TOKENS = {"prompt_tokens": "of the prompt", "completion_tokens": "of the answer"}
_MAX_LINE = 64 * 1024 * 1024
_KINDS = ("failed", "notable", "wrong", "right")
"""In the order in which they are shown; `notable` was scored, but truncated, refused, empty or unparsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    """One sample as the page shows it; all text is fit to be shown."""

    id: str
    name: str
    """How requests name it, in the store."""
    group: str
    kind: str
    verdict: str
    brief: str
    """What the list shows of it before it is opened."""
    marks: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    texts: tuple[tuple[str, str], ...]

    @property
    def kinds(self) -> str:
        """All words that the page's filter knows for it."""
        return " ".join([self.verdict, *self.marks])


@dataclass(slots=True)
class Samples:
    """All samples of a run in sums, and some of each kind."""

    count: int = 0
    unreadable: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    latencies: array[float] = field(default_factory=lambda: array("d"))
    tokens: array[float] = field(default_factory=lambda: array("d"))
    _kept: dict[str, list[ShownSample]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})

    def shown(self) -> list[ShownSample]:
        """At most `MAX_SHOWN` samples: of each kind its share, and where one has fewer the others more."""
        quota = MAX_SHOWN // len(_KINDS)
        wanted = {kind: min(quota, len(kept)) for kind, kept in self._kept.items()}
        for kind, kept in self._kept.items():
            wanted[kind] += min(MAX_SHOWN - sum(wanted.values()), len(kept) - wanted[kind])
        return [sample for kind, kept in self._kept.items() for sample in kept[: wanted[kind]]]

    def take(self, record: Mapping[str, Any]) -> None:
        """Count one record of `samples.jsonl`."""
        marks = _marks(record) if record["status"] == "scored" else ()
        kind = _kind(record, marks)
        if len(self._kept[kind]) < MAX_SHOWN:
            self._kept[kind].append(_as_shown(record, kind, marks))
        self.count += 1
        self.kinds[kind] += 1
        latency, tokens = record.get("latency_ms"), (record.get("usage") or {}).get("completion_tokens")
        if latency is not None:
            self.latencies.append(latency)
        if tokens is not None:
            self.tokens.append(tokens)


def read_samples(output_dir: Path) -> Samples | None:
    """The samples of the run in `output_dir`; None when its harness leaves none in this form.

    Raises:
        OSError: the file cannot be read.
    """
    samples = Samples()
    try:
        file = os.fdopen(open_regular(output_dir / FILE_NAME), "rb")
    except FileNotFoundError:
        return None
    with file:
        while line := file.readline(_MAX_LINE):
            try:
                samples.take(orjson.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                # A line that a crash damaged, or of another program, is no reason to show none of the others.
                samples.unreadable += 1
    return samples


def _marks(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What is notable about a scored answer, with the meaning that these words have in `coverage`."""
    found = {
        "truncated": record.get("finish_reason") == "length",
        "refused": "refusal" in record or record.get("finish_reason") == "content_filter",
        "empty": not (record.get("response") or "").strip(),
        "unparsed": record.get("extracted") is None,
    }
    return tuple(mark for mark, there in found.items() if there)


def _kind(record: Mapping[str, Any], marks: tuple[str, ...]) -> str:
    if record["status"] != "scored":
        return "failed"
    if marks:
        return "notable"
    return "right" if _main_score(record) == 1 else "wrong"


def _main_score(record: Mapping[str, Any]) -> float | None:
    return next(iter((record.get("scores") or {}).values()), None)


def _verdict(record: Mapping[str, Any]) -> str:
    if record["status"] != "scored":
        return str(record["status"])
    score = _main_score(record)
    if score is None:
        return "not scored"
    if score in (0, 1):
        return "right" if score else "wrong"
    return number(score)


def _brief(record: Mapping[str, Any]) -> str:
    if record["status"] != "scored":
        return shown((record.get("error") or {}).get("message"), MAX_BRIEF).replace("\n", " ")
    target = shown(record.get("target"), MAX_BRIEF)
    extracted = shown(record.get("extracted"), MAX_BRIEF)
    # Code and essays are for the inside; a letter or a number says it all.
    if "\n" in target + extracted or record.get("extracted") is None:
        return ""
    return f"{extracted}, target {target}"


def _as_shown(record: Mapping[str, Any], kind: str, marks: tuple[str, ...]) -> ShownSample:
    repeat = record.get("repeat") or 0
    error = record.get("error") or {}
    usage = record.get("usage") or {}
    scores = record.get("scores") or {}
    compared = {name: record.get(name) for name in ("extracted", "target")}
    # Programs and essays keep their lines; what only repeats the answer is left out.
    long = {name: value for name, value in compared.items() if isinstance(value, str) and "\n" in value}
    facts = {
        **{name: value for name, value in compared.items() if name not in long},
        "scores": ", ".join(f"{name} {number(value)}" for name, value in scores.items()) if len(scores) > 1 else None,
        "finish reason": record.get("finish_reason"),
        "tokens": ", ".join(f"{usage[key]} {name}" for key, name in _TOKENS.items() if key in usage),
        "latency": f"{number(record['latency_ms'] / 1000)} s" if record.get("latency_ms") is not None else None,
        "attempts": record["attempts"] if record.get("attempts", 1) != 1 else None,
        "request": record.get("request_id"),
    }
    texts = {
        "answer": record.get("response"),
        **{name: value for name, value in long.items() if value != record.get("response")},
        "why": record.get("detail"),
        "error": f"{error.get('kind')}: {error.get('message')}" if error else None,
        "refusal": record.get("refusal"),
        "reasoning": record.get("reasoning"),
    }
    return ShownSample(
        id=shown(record["id"], MAX_SHORT_TEXT) + (f" #{repeat + 1}" if repeat else ""),
        name=sample_header(str(record["id"])),
        group=shown(record.get("group"), MAX_SHORT_TEXT),
        kind=kind,
        verdict=shown(_verdict(record), MAX_SHORT_TEXT),
        brief=_brief(record),
        marks=marks,
        facts=tuple((name, shown(value, MAX_SHORT_TEXT)) for name, value in facts.items() if value not in (None, "")),
        texts=tuple((name, shown(value, MAX_TEXT)) for name, value in texts.items() if value is not None),
    )
