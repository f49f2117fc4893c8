"""`nemo-evaluator status`: how runs stand, read from their folders."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemo_evaluator.cli.ending import OnlyPrinted
from nemo_evaluator.cli.terminal_text import harmless_line
from nemo_evaluator.core.status import RunStatus, read_status
from nemo_evaluator.core.status_words import duration, errors, money, per_second, samples, time_left

if TYPE_CHECKING:
    from rich.console import RenderableType

_WATCH_SECONDS = 1.0
_MOST_SCORES = 3
_SECOND = 1000
_COLOURS = {
    "running": "green", "finished": "green", "paused": "yellow", "stopping": "yellow", "interrupted": "yellow",
    "failed": "red", "died": "red", "unresponsive": "red",
}  # fmt: skip
_COUNTS = {
    "failed": "failed", "in_flight": "in flight", "waiting": "waiting", "retried": "retried", "cached": "cached",
    "not_stored": "not stored", "truncated": "truncated",
}  # fmt: skip
_EPILOG = """\b
Exit codes:
  0  every run goes on or is finished
  1  a run failed, was interrupted, died, or does not respond
  2  a folder holds no run, or a status.json that cannot be read

\b
Examples:
  nemo-evaluator status results/gpqa --watch
  nemo-evaluator status results/* --json"""


@click.command("status", epilog=_EPILOG)
@click.argument("output_dirs", metavar="OUTPUT_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Show it each second until all runs have ended.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each folder and look.")
def status(*, output_dirs: tuple[Path, ...], watch: bool, as_json: bool) -> int:
    """Show how the runs in the folders stand.

    It only reads files: from another terminal, as another user who may read the folder, from outside of the container.
    """
    while True:
        found = [read_status(folder) for folder in output_dirs]
        over = not watch or not any(run.is_alive for run in found)
        _show(found, as_json=as_json, again=watch, over=over)
        if over:
            return OnlyPrinted(0 if all(run.is_alive or run.state == "finished" for run in found) else 1)
        time.sleep(_WATCH_SECONDS)


def _show(found: Sequence[RunStatus], *, as_json: bool, again: bool, over: bool) -> None:
    if as_json:
        for run in found:
            click.echo(json.dumps(run.as_dict()))
    elif not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        for run in found:
            click.echo("\n".join(_lines(run)))
    else:
        _draw(found, again=again, over=over)
    sys.stdout.flush()


def _lines(run: RunStatus) -> Iterator[str]:
    yield f"{run.folder}: {_headline(run)}"
    yield from _row_lines(run)


def _row_lines(run: RunStatus) -> Iterator[str]:
    yield from (f"  {harmless_line(name):<9} {harmless_line(text)}" for name, text in _rows(run))


def _draw(found: Sequence[RunStatus], *, again: bool, over: bool) -> None:
    from rich.console import Console, Group  # noqa: PLC0415  only for terminals
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    parts: list[RenderableType] = []
    for run in found:
        state, _, more = _headline(run).partition(" ")
        title = Text(f"{run.folder}  ", style="bold")
        parts.append(title.append(state, style=f"bold {_COLOURS.get(run.state, 'cyan')}").append(f" {more}"))
        parts += [_bar(run), *map(Text, _row_lines(run)), Text()]
    if again:
        console.clear()
        parts.append(Text("" if over else "Ctrl-C ends the watching, not the run.", style="dim"))
    console.print(Group(*parts))


def _bar(run: RunStatus) -> RenderableType:
    from rich.padding import Padding  # noqa: PLC0415  only for terminals
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    found = run.document["samples"]
    if not found["planned"]:
        return Text()
    return Padding(ProgressBar(total=found["planned"], completed=found["done"], width=50), (0, 0, 0, 2))


def _headline(run: RunStatus) -> str:
    """The state first, then what explains it."""
    document = run.document
    parts = [f"{run.state} {'for' if run.is_alive else 'after'} {duration(document['elapsed_seconds'])}"]
    if document["ended"] is not None:
        parts.append(f"ended {document['ended'][:19].replace('T', ' ')} UTC")
        if document["exit_code"]:
            parts.append(f"exit code {document['exit_code']}")
    else:
        parts.append(f"process {document['pid']} on {document['host']}")
    if not run.is_alive and run.silent_seconds is not None:
        parts.append(f"last heard of {duration(run.silent_seconds)} ago")
    return harmless_line(", ".join(parts))


def _rows(run: RunStatus) -> Iterator[tuple[str, str]]:
    document = run.document
    task = ", ".join(str(document[key]) for key in ("task", "model") if document.get(key))
    if task:
        yield "run", task
    counted = samples(document)
    if counted is not None:
        yield "samples", ", ".join(part for part in (counted, *_of_samples(run)) if part)
    for name, upstream in document["upstreams"].items():
        yield name, ", ".join(_of_requests(upstream, recent=run.is_alive))
        if upstream["errors"]:
            yield "", f"errors: {', '.join(errors(upstream['errors']))}"
    if document["reason"]:
        yield "reason", document["reason"]
    if document["metrics_url"]:
        yield "metrics", document["metrics_url"]


def _of_samples(run: RunStatus) -> Iterator[str | None]:
    found = run.document["samples"]
    if found["failed"]:
        yield f"{found['failed']:,} failed"
    if run.is_alive:
        yield per_second(found["per_second"]) if found["per_second"] else None
        yield time_left(run.document)
    so_far = "" if run.state == "finished" else " so far"
    yield from (f"{name} {value:.3f}{so_far}" for name, value in list(found["mean_scores"].items())[:_MOST_SCORES])


def _of_requests(upstream: dict[str, Any], *, recent: bool) -> Iterator[str]:
    yield f"{upstream['requests']:,} requests"
    yield f"{upstream['answered']:,} answered"
    yield from (f"{upstream[key]:,} {word}" for key, word in _COUNTS.items() if upstream[key])
    limit = upstream["concurrency"]
    if limit is not None and limit["limit"] is not None:
        yield f"at most {limit['limit']} at once"
    if upstream["tokens"]["total"]:
        rate = upstream["rates"]["tokens_per_second" if recent else "overall_tokens_per_second"]
        yield f"{upstream['tokens']['total']:,} tokens ({rate:,.0f} generated a second)"
    latency = upstream["latency_ms"]
    if latency["p50"] is not None:
        yield f"latency {' / '.join(_milliseconds(latency[name]) for name in ('p50', 'p90', 'p99'))} (p50, p90, p99)"
    if upstream["cost"] is not None:
        yield money(upstream["cost"], upstream["currency"])


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value < _SECOND else f"{value / _SECOND:.1f} s"
