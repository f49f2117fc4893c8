"""`nemo-evaluator run_eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemo_evaluator import strict_yaml
from nemo_evaluator.cli.ending import OnlyPrinted
from nemo_evaluator.cli.words import say
from nemo_evaluator.core.definitions import discover
from nemo_evaluator.core.layers import Settings, flags_layer, overrides_layer, run_config_layer
from nemo_evaluator.core.overrides import parse

if TYPE_CHECKING:
    from nemo_evaluator.core.resolve import Resolved

MODEL_TYPES = ("chat", "completions", "completions_logprob", "embedding", "vlm")

_EPILOG = """\b
Examples:
  nemo-evaluator run_eval --eval_type gpqa_diamond --model_id my-model --model_type chat \\
      --model_url http://localhost:8000/v1/chat/completions --output_dir results/gpqa
  nemo-evaluator run_eval --run_config run.yml --overrides 'config.params.extra.n_samples=5'
  nemo-evaluator run_eval --self_test

Of several sources the first of these counts: --overrides, the other flags, the run configuration, the task's
defaults, the framework's defaults. In --overrides, null resets a parameter: config.params.temperature=null"""


@click.command("run_eval", epilog=_EPILOG)
@click.option("--eval_type", metavar="TASK", help="Task, or FRAMEWORK.TASK where several frameworks have it.")
@click.option("--model_id", help="Name of the model, as the endpoint knows it.")
@click.option("--model_type", type=click.Choice(MODEL_TYPES), help="What the endpoint speaks.")
@click.option("--model_url", metavar="URL", help="The endpoint's full URL, such as http://host/v1/chat/completions.")
@click.option("--output_dir", metavar="FOLDER", help="Folder for all files of the run.")
@click.option("--api_key_name", metavar="VARIABLE", help="Name of the environment variable that holds the key.")
@click.option("--run_config", metavar="FILE", type=click.Path(path_type=Path), help="YAML file with these settings.")
@click.option("--overrides", metavar="KEY=VALUE,…", help="Settings by dotted key; values are YAML.")
@click.option("--dry_run", is_flag=True, help="Print the configuration and the command; start nothing.")
@click.option("--no_preflight", is_flag=True, help="Do not check endpoint, key and data before the run.")
@click.option("--replay", is_flag=True, help="Take all answers from the store of the folder; ask no endpoint.")
@click.option("--self_test", is_flag=True, help="Check known answers, with no model and no network.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON at the end.")
@click.pass_context
def run_eval(
    ctx: click.Context,
    *,
    eval_type: str | None,
    model_id: str | None,
    model_type: str | None,
    model_url: str | None,
    output_dir: str | None,
    api_key_name: str | None,
    run_config: Path | None,
    overrides: str | None,
    dry_run: bool,
    no_preflight: bool,
    replay: bool,
    self_test: bool,
    as_json: bool,
) -> int:
    """Run one evaluation; its files, with results.yml, go to the output folder.

    Starting the same command again after an interruption goes on where it stopped.
    """
    if self_test:
        _self_test(eval_type)
        return 0
    layers = []
    if run_config is not None:
        layers.append(run_config_layer(strict_yaml.load(run_config), source=str(run_config)))
    layers.append(
        flags_layer(
            {
                "config.type": eval_type,
                "config.output_dir": output_dir,
                "target.api_endpoint.model_id": model_id,
                "target.api_endpoint.type": model_type,
                "target.api_endpoint.url": model_url,
                "target.api_endpoint.api_key_name": api_key_name,
            }
        )
    )
    if overrides is not None:
        layers.append(overrides_layer(parse(overrides)))
    resolved = _resolve(Settings(tuple(layers)))
    if dry_run:
        _print_plan(resolved)
        return OnlyPrinted()
    level = (ctx.obj or {}).get("level")
    _run(resolved, preflight=not no_preflight, replay=replay, as_json=as_json, level=level)
    return 0


def _resolve(settings: Settings) -> Resolved:
    from nemo_evaluator.core.resolve import resolve  # noqa: PLC0415  brings pydantic, which --help does not need

    return resolve(settings, discover())


def _print_plan(resolved: Resolved) -> None:
    from nemo_evaluator.adapters.routes import resolve_routes  # noqa: PLC0415  only when something is resolved
    from nemo_evaluator.core.chain_text import chain_text  # noqa: PLC0415
    from nemo_evaluator.core.document import document, written_command  # noqa: PLC0415

    written = document(resolved.evaluation)
    command = written_command(resolved.evaluation, written)
    routes = resolve_routes(resolved.evaluation, resolved.evaluation.config.output_dir or "")
    for notice in resolved.notices:
        _notify(notice)
    click.echo(f"Rendered config:\n\n{strict_yaml.dumps(written)}\n\nRendered command:\n\n{command}")
    # Standard output has the compatible texts alone: scripts read the command from there.
    click.echo(f"\n{chain_text(routes)}", err=True)


def _run(resolved: Resolved, *, preflight: bool, replay: bool, as_json: bool, level: str | None) -> None:
    import logging  # noqa: PLC0415  only for runs

    from nemo_evaluator.cli.display import keep_apart, progress_of  # noqa: PLC0415
    from nemo_evaluator.cli.logs import configure_logging  # noqa: PLC0415
    from nemo_evaluator.cli.scores import print_scores, scores_data  # noqa: PLC0415
    from nemo_evaluator.core.evaluate import RunOptions, run  # noqa: PLC0415
    from nemo_evaluator.core.live import LiveLine  # noqa: PLC0415

    configure_logging(level)
    # With --json standard output is for the JSON alone.
    shown = sys.stderr if as_json else sys.stdout
    notify = _stay_quiet if level == "ERROR" else _notify
    progress = None if level == "ERROR" else progress_of(shown)
    if isinstance(progress, LiveLine):
        keep_apart(progress)
    options = RunOptions(
        preflight=preflight,
        replay=replay,
        notify=notify,
        echo=shown.buffer,
        echo_is_terminal=shown.isatty(),
        progress=progress,
    )
    outcome = run(resolved, options)
    logging.getLogger(__name__).debug("results are in %s", outcome.results_file)
    if as_json:
        import json  # noqa: PLC0415

        click.echo(json.dumps(scores_data(outcome), indent=2, ensure_ascii=False))
    else:
        print_scores(outcome)


def _self_test(eval_type: str | None) -> None:
    from nemo_evaluator.core.selftest import self_test  # noqa: PLC0415  brings pydantic

    names = self_test(discover(), eval_type=eval_type, echo=sys.stdout.buffer)
    click.echo(f"Self-test passed: {', '.join(names)}")


def _notify(message: Any) -> None:
    say(f"Note: {message}", error_stream=True)


def _stay_quiet(_message: Any) -> None:
    """With --quiet only errors are said."""
