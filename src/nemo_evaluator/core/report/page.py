"""Facts as one HTML page that needs nothing but itself.

Everything that comes from a model, a dataset or a user is data: the template escapes all of it, the script reads the
finished page alone, and the page's own policy forbids whatever else it could be made to load or run.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

import nemo_evaluator
from nemo_evaluator.core.report.facts import MAX_ROWS, Report
from nemo_evaluator.core.report.histogram import Histogram
from nemo_evaluator.core.report.samples import FILE_NAME
from nemo_evaluator.core.report.scores import ScoreRow
from nemo_evaluator.core.report.text import number, share, visible

_GAP = 0.15
"""Share of a bar's width that stays empty."""
_LARGE = 1000


def render(report: Report) -> str:
    """The page of `report`."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    environment.filters |= {"number": number, "share": share, "score": _score}
    # Written here and hashed here: what the policy allows to run is exactly this text.
    script = _resource("page.js")
    return environment.from_string(_resource("page.html.j2")).render(
        report=report,
        style=Markup(_resource("page.css")),  # noqa: S704  our own file
        script=Markup(script),  # noqa: S704  our own file
        script_hash=_hash(script),
        version=nemo_evaluator.__version__,
        axis=_axis,
        bars=_bars,
        in_seconds=report.latency is not None and report.latency.greatest >= _LARGE,
        max_rows=MAX_ROWS,
        samples_file=FILE_NAME,
        coverage_parts=_coverage_parts(report),
        columns=_columns,
        cumulated=_cumulated,
        lengths=_lengths,
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _finalize(value: Any) -> Any:
    """Every printed text shows each of its characters; markup is our own."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _score(value: float) -> str:
    """A score with as many decimals as its scale needs: 0.0750 of 1, 7.50 of 100."""
    if abs(value) <= 1:
        return f"{value:.4f}"
    return f"{value:.2f}" if abs(value) < _LARGE else number(value)


def _axis(row: ScoreRow) -> dict[str, float]:
    """Where a score and its interval stand on their axis, in percent of its length."""
    low, high = row.scale()

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value - low) / ((high - low) or 1.0))), 2)

    interval = row.interval
    return {
        "value": place(row.value),
        "from": place(interval.low if interval else row.value),
        "to": place(interval.high if interval else row.value),
        "low": low,
        "high": high,
    }


def _bars(histogram: Histogram) -> Sequence[dict[str, float]]:
    """The bars of a histogram in percent of the picture's width and height."""
    width = 100 / len(histogram.counts)
    most = max(histogram.counts)
    return [
        {
            "x": round(index * width, 3),
            "width": round(width * (1 - _GAP), 3),
            "height": round(100 * count / most, 2),
            "count": count,
        }
        for index, count in enumerate(histogram.counts)
    ]


def _columns(values: Sequence[float], below: Sequence[float] = ()) -> Sequence[dict[str, float]]:
    """Columns side by side, in percent of the picture's width and height; `below` is the lower part of each."""
    lower = list(below) or [0.0] * len(values)
    most = max((one + two for one, two in zip(values, lower, strict=True)), default=0.0) or 1.0
    width = 100 / max(1, len(values))
    return [
        {
            "x": round(index * width, 3),
            "width": round(width * (1 - _GAP), 3),
            "height": round(100 * upper / most, 2),
            "below": round(100 * low / most, 2),
            "value": upper,
            "low": low,
        }
        for index, (upper, low) in enumerate(zip(values, lower, strict=True))
    ]


def _cumulated(values: Sequence[float]) -> Sequence[float]:
    """The running sums of `values`."""
    return list(itertools.accumulate(values))


def _lengths(counts: Mapping[str, int]) -> Sequence[dict[str, Any]]:
    """The names of `counts` with the length of a bar for each, in percent of the longest."""
    most = max(counts.values(), default=1)
    return [{"name": name, "count": count, "width": round(100 * count / most, 2)} for name, count in counts.items()]


def _coverage_parts(report: Report) -> Sequence[dict[str, Any]]:
    """The parts of the planned samples, one beside the other; empty when the harness does not count them."""
    coverage = report.coverage
    planned = coverage.get("planned")
    if not planned:
        return []
    parts = []
    start = 0.0
    for key in ("scored", "failed", "skipped"):
        count = coverage.get(key) or 0
        if count:
            width = 100 * count / planned
            parts.append({"key": key, "count": count, "x": round(start, 3), "width": round(width, 3)})
            start += width
    return parts
