"""`nemo-evaluator control`: pause, resume, limit or stop a run that is under way."""

from __future__ import annotations

from pathlib import Path

import click

from nemo_evaluator.cli.terminal_text import harmless_line
from nemo_evaluator.cli.words import say
from nemo_evaluator.core.command_file import MOST_AT_ONCE, Verb
from nemo_evaluator.core.control import WAIT_SECONDS, send

_EPILOG = """\b
Examples:
  nemo-evaluator control results/gpqa pause
  nemo-evaluator control results/gpqa concurrency 4
  nemo-evaluator control results/gpqa concurrency 2 --upstream judge
  nemo-evaluator control results/gpqa concurrency off
  nemo-evaluator control results/gpqa stop

A run that was stopped ends with code 143; the same command started again goes on where it stopped."""

_folder = click.argument("output_dir", type=click.Path(path_type=Path))
_wait = click.option(
    "--wait",
    "wait_seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=WAIT_SECONDS,
    show_default=True,
    help="How long to wait for the run's answer.",
)


@click.command("control", epilog=_EPILOG)
@_folder
@click.argument("command", type=click.Choice(["pause", "resume", "concurrency", "stop"]))
@click.argument("value", required=False)
@click.option("--upstream", metavar="NAME", help="With concurrency: one endpoint only, such as model or judge.")
@_wait
def control(*, output_dir: Path, command: Verb, value: str | None, upstream: str | None, wait_seconds: float) -> None:
    """Tell the run in OUTPUT_DIR to pause, to resume, to have at most VALUE requests at once, or to stop.

    It acts on any harness, since all requests pass through the run's proxy. Whoever may write to the folder may do it,
    from another terminal or from outside of the container.
    """
    if command != "concurrency" and (value is not None or upstream is not None):
        raise click.UsageError(f"{command} takes no {'value' if value is not None else '--upstream'}.")
    limit = _limit(value) if command == "concurrency" else None
    answer = send(output_dir, command, value=limit, upstream=upstream, wait_seconds=wait_seconds)
    say(f"{output_dir}: {harmless_line(answer.message)}")


def _limit(value: str | None) -> int | None:
    if value == "off":
        return None
    # A number of thousands of digits cannot even be read.
    is_number = value is not None and value.isascii() and value.isdigit() and len(value) <= len(str(MOST_AT_ONCE))
    limit = int(value) if value is not None and is_number else 0
    if not 1 <= limit <= MOST_AT_ONCE:
        raise click.UsageError(f"concurrency needs a whole number of at least 1 and at most {MOST_AT_ONCE:,}, or off.")
    return limit
