"""`nemo-evaluator`: commands, words and exit codes. The only layer that prints."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import nemo_evaluator
from nemo_evaluator.cli.ending import end
from nemo_evaluator.cli.terminal_text import harmless
from nemo_evaluator.cli.words import say
from nemo_evaluator.errors import EvaluatorError, UsageError

_COMMANDS = {
    "ls": "nemo_evaluator.cli.ls:ls",
    "run_eval": "nemo_evaluator.cli.run_eval:run_eval",
    "status": "nemo_evaluator.cli.status:status",
    "control": "nemo_evaluator.cli.control:control",
    "requests": "nemo_evaluator.cli.requests:requests",
    "lint": "nemo_evaluator.cli.lint:lint",
    "schema": "nemo_evaluator.cli.lint:schema",
    "quickstart": "nemo_evaluator.cli.quickstart:quickstart",
    "images": "nemo_evaluator.cli.images:images_command",
    "testing": "nemo_evaluator.cli.testing:testing",
    "completion": "nemo_evaluator.cli.completion:completion",
    "engine": "nemo_evaluator.cli.engine:engine",
}
"""Command to the place of its definition; a command's module is imported when it is used."""

_HELP = {
    "ls": "List the tasks that are installed here.",
    "run_eval": "Run one evaluation.",
    "status": "Show how runs stand.",
    "control": "Pause, resume, limit or stop a run.",
    "requests": "List, show or export the requests of a run.",
    "lint": "Check framework definitions completely.",
    "schema": "Print the JSON Schema of framework.yml.",
    "quickstart": "Run one benchmark end to end, to see how it works.",
    "images": "Build and inspect benchmark images.",
    "testing": "Start the fake model endpoint or the fake dataset hub.",
    "completion": "Print the shell completion script.",
}

EXIT_CODES = """\b
Exit codes:
  0  done            4  the harness failed
  1  unexpected      5  no results could be read
  2  usage           6  a self-test verdict differs
  3  endpoint        7  a dataset or a stored answer cannot be had
  8  the budget is used up
  128+n  ended by signal n (130 Ctrl-C, 143 SIGTERM)"""

EXAMPLES = """\b
Examples:
  nemo-evaluator ls
  nemo-evaluator run_eval --eval_type mmlu_pro --model_id my-model \\
      --model_url http://localhost:8000/v1/chat/completions --model_type chat \\
      --api_key_name MY_KEY --output_dir results/mmlu_pro
  nemo-evaluator run_eval --run_config run.yml --overrides config.params.limit_samples=10 --dry_run"""


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are used: `ls` must not pay for `run_eval`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  the library's signature
        return list(_HELP)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  the library's signature
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from nemo_evaluator.suggest import did_you_mean  # noqa: PLC0415  only when a command is unknown

            raise click.UsageError(f"No such command {args[0]!r}.{did_you_mean(args[0], _HELP)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  the library's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"{EXAMPLES}\n\n{EXIT_CODES}",
)
@click.version_option(nemo_evaluator.__version__, prog_name="nemo-evaluator")
@click.option("--debug", is_flag=True, help="Log everything and show tracebacks.")
@click.option("-v", "--verbose", count=True, help="Log more.")
@click.option("-q", "--quiet", is_flag=True, help="Log errors only.")
@click.pass_context
def cli(ctx: click.Context, *, debug: bool, verbose: int, quiet: bool) -> None:
    """Evaluate models with benchmarks that are all driven the same way."""
    ctx.obj = {"level": _level(debug=debug, verbose=verbose, quiet=quiet)}
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _level(*, debug: bool, verbose: int, quiet: bool) -> str | None:
    """The log level that the flags ask for; None when they leave it to the environment."""
    if debug or verbose:
        return "DEBUG"
    return "ERROR" if quiet else None


def main(args: list[str]) -> int:
    """Run the command line `args` and return its exit code; errors are printed, not raised."""
    # Whatever the caller's umask, nobody but its owner may write what we make.
    os.umask(os.umask(0o022) | 0o022)
    _open_missing_streams()
    stdout = sys.stdout
    debug = "--debug" in args
    try:
        code: Any = cli.main(args=args, prog_name="nemo-evaluator", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return UsageError.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("Interrupted.", error_stream=True)
        return 130
    except SystemExit as error:
        # When the reader of our output (`| head`) has gone, click replaces the streams and ends: that is no error.
        return 0 if sys.stdout is not stdout else _as_code(error.code)
    except Exception as error:  # noqa: BLE001  the one place where errors become words and exit codes
        if debug:
            import traceback  # noqa: PLC0415  only for who asks for it

            traceback.print_exc()
        else:
            say(_words(error), error_stream=True)
        return error.exit_code if isinstance(error, EvaluatorError) else 1
    return code if isinstance(code, int) else 0


def _words(error: Exception) -> str:
    """What a user is told about an error."""
    if isinstance(error, EvaluatorError):
        return f"Error: {harmless(str(error))}"
    if isinstance(error, OSError):
        return f"Error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return (
        f"Unexpected error: {type(error).__name__}: {error}\n"
        "This is a bug. Run the same command with `nemo-evaluator --debug …` and report what it prints."
    )


def _as_code(code: object) -> int:
    if code is None:
        return 0
    return code if isinstance(code, int) else 1


def _open_missing_streams() -> None:
    """Give a process that was started with closed streams (`>&-`) something to write to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  open until the process ends


def entry() -> None:
    """The console script."""
    # Nearly everything that a start makes is kept, so looking for garbage in it is time lost: a tenth of `--dry_run`.
    gc.set_threshold(100_000, 20, 50)
    end(main(sys.argv[1:]))


def deprecated_entry() -> None:
    """The console script under its former name."""
    click.echo("Note: `eval-factory` is now called `nemo-evaluator`; the former name will go.", err=True)
    entry()
