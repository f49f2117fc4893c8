"""What a report says, before it is a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nemo_evaluator import strict_yaml
from nemo_evaluator.core.report.histogram import Histogram, histogram
from nemo_evaluator.core.report.notices import Notice, notices
from nemo_evaluator.core.report.requests import MAX_SHOWN, Reads, Requests, collect_requests, requests_of
from nemo_evaluator.core.report.samples import FILE_NAME, Samples, ShownSample
from nemo_evaluator.core.report.scores import ScoreRow, headline, members, score_rows
from nemo_evaluator.core.report.text import number

MAX_ROWS = 500
"""Scores of one table; a harness of hundreds of tasks has its full list in `results.yml`."""
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The facts of one run."""

    task: str
    framework: str
    model: str
    notices: Sequence[Notice]
    headline: ScoreRow | None
    scores: Sequence[ScoreRow]
    groups: Sequence[ScoreRow]
    coverage: Mapping[str, Any]
    latency: Histogram | None
    """Milliseconds."""
    tokens: Histogram | None
    """Completion tokens of an answer."""
    samples: Sequence[ShownSample]
    samples_total: int
    """Lines of `samples.jsonl`; 0 when the harness leaves none."""
    kinds: Mapping[str, int]
    unreadable: int
    requests: Requests | None
    """None when the run left no store of them."""
    asked: Mapping[str, Sequence[tuple[int, str]]]
    """For each shown sample's name the ids of its requests, each with what was asked."""
    run: Sequence[tuple[str, str]]
    provenance: Sequence[tuple[str, str]]
    command: str
    configuration: str

    def as_data(self) -> dict[str, Any]:
        """The facts for `report.json`; of the samples only how many there are of each kind."""
        return {
            "task": self.task,
            "framework": self.framework,
            "model": self.model,
            "notices": [asdict(notice) for notice in self.notices],
            "headline": asdict(self.headline) if self.headline else None,
            "scores": [asdict(row) for row in self.scores],
            "groups": [asdict(row) for row in self.groups],
            "coverage": dict(self.coverage),
            "latency_ms": asdict(self.latency) if self.latency else None,
            "completion_tokens": asdict(self.tokens) if self.tokens else None,
            "samples": {
                "file": FILE_NAME if self.samples_total else None,
                "total": self.samples_total,
                "shown_on_page": len(self.samples),
                "unreadable": self.unreadable,
                "by_kind": dict(self.kinds),
            },
            "requests": self.requests.as_data() if self.requests else None,
            "run": dict(self.run),
            "provenance": dict(self.provenance),
            "command": self.command,
        }


def collect(
    document: Mapping[str, Any],
    samples: Samples | None,
    metrics: Mapping[str, Any],
    reader: Reads | None = None,
    *,
    starts: tuple[int, ...] | None = None,
    most_requests: int = MAX_SHOWN,
    currency: str = "",
) -> Report:
    """The report of a run.

    Args:
        document: its `results.yml`.
        samples: those that its harness left.
        metrics: its `eval_factory_metrics.json`.
        reader: its store of requests, if it has one.
        starts: the starts of the store that are the run's; None when all are.
        most_requests: how many of them are shown.
        currency: what costs are in; empty when that is not known.

    Raises:
        AttributeError, KeyError, TypeError: a part of them has another form.
    """
    samples = samples or Samples()
    config, provenance = document["config"], document.get("provenance") or {}
    endpoint = (document.get("target") or {}).get("api_endpoint") or {}
    rows = score_rows(document["results"])
    main = headline(rows, config["type"])
    settings = {"config": config, "target": document.get("target")}
    shown_samples = samples.shown()
    return Report(
        task=config["type"],
        framework=str(provenance.get("framework") or ""),
        model=str(endpoint.get("model_id") or ""),
        notices=notices(document),
        headline=main,
        scores=rows,
        groups=members(document["results"], main) if main else (),
        coverage=document.get("coverage") or {},
        latency=histogram(samples.latencies),
        tokens=histogram(samples.tokens),
        samples=shown_samples,
        samples_total=samples.count,
        kinds=samples.kinds,
        unreadable=samples.unreadable,
        requests=collect_requests(reader, most=most_requests, starts=starts, currency=currency) if reader else None,
        asked=requests_of(reader, [sample.name for sample in shown_samples], starts=starts) if reader else {},
        run=tuple(_run(metrics)),
        provenance=tuple(_flat({key: value for key, value in provenance.items() if key != "command"})),
        command=str(provenance.get("command") or document.get("command") or ""),
        configuration=strict_yaml.dumps(settings),
    )


def _run(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the run took, as far as it was measured."""
    evaluation, stats = metrics.get("evaluation") or {}, metrics.get("response_stats") or {}
    if (seconds := evaluation.get("runtime_seconds")) is not None:
        yield "time", _duration(seconds)
    if (starts := evaluation.get("total_runs") or 1) > 1:
        yield "starts", f"{starts} (an interrupted run goes on)"
    for key, label, unit in (
        ("count", "requests", ""),
        ("avg_latency_ms", "mean latency", " ms"),
        ("avg_prompt_tokens", "mean prompt", " tokens"),
        ("avg_completion_tokens", "mean answer", " tokens"),
    ):
        if (value := stats.get(key)) is not None:
            yield label, f"{number(value)}{unit}"
    if memory := evaluation.get("peak_tree_memory_bytes"):
        yield "peak memory", f"{memory / _MIB:,.0f} MiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings and lists, each with its dotted key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{key}[{index}]")
    elif value is not None:
        yield key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
