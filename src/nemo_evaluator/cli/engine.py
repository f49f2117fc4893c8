"""`nemo-evaluator engine`: the command line of the native engine, which the definitions of native harnesses call."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemo_evaluator import env, strict_yaml
from nemo_evaluator.errors import InterruptedRun, MisconfigurationError

if TYPE_CHECKING:
    from nemo_evaluator.engine.progress import Progress

_SECONDS_BETWEEN_LINES = 10.0
_BAR_WIDTH = 24

_benchmark = click.option("--benchmark", required=True, help="Name of the framework, or the folder of its harness.")
_options = click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of config.params.extra; YAML value."
)


@click.group("engine")
def engine() -> None:
    """Run a native benchmark without the surroundings of run_eval."""


@engine.command("run")
@_benchmark
@_options
@click.option("--task", required=True)
@click.option("--model", required=True)
@click.option("--url", required=True)
@click.option("--model-type", required=True, type=click.Choice(["chat", "completions"]))
@click.option("--output-dir", required=True, type=click.Path(path_type=Path))
@click.option("--api-key-name", help="Name of the environment variable that holds the key.")
@click.option("--parallelism", type=click.IntRange(1), default=10, show_default=True)
@click.option("--temperature", type=float)
@click.option("--top-p", type=float)
@click.option("--max-new-tokens", type=click.IntRange(1))
@click.option("--max-retries", type=click.IntRange(0), default=5, show_default=True)
@click.option("--request-timeout", type=float, default=60.0, show_default=True, help="Seconds for one attempt.")
@click.option("--limit-samples", type=float, help="The first so many samples; below 1, this fraction of all.")
def run_command(*, benchmark: str, options: tuple[str, ...], **parameters: Any) -> int:
    """Ask a benchmark's samples, score the answers, write samples.jsonl and summary.json."""
    from nemo_evaluator.engine.run import EngineRun, run  # noqa: PLC0415  only the command that needs it pays

    try:
        summary = run(
            EngineRun(benchmark=harness_folder(benchmark), options=parse_options(options), **parameters),
            progress=_progress_printer(),
        )
    except InterruptedRun as interrupted:
        if env.get(env.HARNESS_FOLDER) is None:
            raise
        # Whoever started it as a harness knows why it was stopped, and says what to do.
        return interrupted.exit_code
    coverage = summary.coverage
    click.echo(f"Scored {coverage['scored']} of {coverage['planned']}, {coverage['failed']} failed.")
    return 0


@engine.command("check-data")
@_benchmark
@_options
@click.option("--task", required=True)
def check_data_command(*, benchmark: str, options: tuple[str, ...], task: str) -> None:
    """Check that a task's data can be had."""
    from nemo_evaluator.engine.run import check_data  # noqa: PLC0415  only the command that needs it pays

    click.echo(check_data(harness_folder(benchmark), task, options=parse_options(options)))


@engine.command("self-test")
@_benchmark
@click.option("--task", help="One task only.")
def self_test_command(*, benchmark: str, task: str | None) -> None:
    """Check known answers, an oracle and a do-nothing run; offline."""
    from nemo_evaluator.engine.selftest import self_test  # noqa: PLC0415  only the command that needs it pays

    report = self_test(harness_folder(benchmark), task=task)
    for line in report.lines():
        click.echo(line)


def harness_folder(benchmark: str) -> Path:
    """The folder of the harness that `benchmark` names: a folder itself, or the name of a framework.

    Raises:
        MisconfigurationError: there is none.
    """
    folder = Path(benchmark)
    if (folder / "benchmark.py").is_file():
        return folder
    from nemo_evaluator.core.definitions import discover  # noqa: PLC0415  not needed for a folder
    from nemo_evaluator.suggest import did_you_mean  # noqa: PLC0415

    frameworks = discover().frameworks
    if benchmark not in frameworks:
        raise MisconfigurationError(f"Unknown framework {benchmark}.{did_you_mean(benchmark, frameworks)}")
    return frameworks[benchmark].folder


def parse_options(options: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` texts as a mapping; values are YAML, so `null` means not given and text may be written as JSON."""
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise MisconfigurationError(f"--option: {option!r} is not of the form KEY=VALUE")
        parsed[key] = strict_yaml.loads(value, source=f"--option {key}") if value else ""
    return parsed


def _progress_printer() -> Callable[[Progress], None]:
    """A bar that is drawn over on a terminal; else a line every ten seconds; only the last one where others show it."""
    asked = env.get(env.PROGRESS_BAR)
    bar = sys.stderr.isatty() if asked is None else asked != "0"
    pause = math.inf if asked == "0" else _SECONDS_BETWEEN_LINES
    last = 0.0
    is_over = False

    def show(progress: Progress) -> None:
        nonlocal last, is_over
        now = time.monotonic()
        finished = progress.done >= progress.planned
        if is_over:
            return
        is_over = finished
        if bar:
            click.echo(f"\r{_bar(progress)} {_state(progress):<70}", err=True, nl=finished)
        elif finished or now - last >= pause:
            last = now
            click.echo(_state(progress), err=True)

    return show


def _bar(progress: Progress) -> str:
    filled = round(_BAR_WIDTH * progress.done / max(progress.planned, 1))
    return "█" * filled + "░" * (_BAR_WIDTH - filled)


def _state(progress: Progress) -> str:
    # The answers that earlier starts had are not in it: it must not read as the score of all.
    part = " in this start" if progress.kept else ""
    score = f", score {progress.score:.3f}{part}" if progress.score is not None else ""
    failed = f", {progress.failed} failed" if progress.failed else ""
    left = (progress.planned - progress.done) / progress.rate if progress.rate else 0.0
    share = progress.done / max(progress.planned, 1)
    return (
        f"{progress.done}/{progress.planned} samples ({share:.0%}){failed}{score}, {progress.rate:.1f}/s,"
        f" {left:.0f} s left"
    )
