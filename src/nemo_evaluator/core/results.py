"""From what a harness left behind to typed results, and from those to `results.yml`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from nemo_evaluator import strict_yaml
from nemo_evaluator.api.api_dataclasses import EvaluationResult, GroupResult, Score, TaskResult
from nemo_evaluator.core.definitions import NAMESPACE, Framework
from nemo_evaluator.errors import EvaluatorError, ResultsError
from nemo_evaluator.files import write_atomically

RESULTS_FILE = "results.yml"
PREVIOUS_FILE = "results.previous.yml"
SUMMARY_FILE = "summary.json"
"""Results, coverage and data of a native harness, as the engine writes them."""

_Parser = Callable[[str], EvaluationResult]


def parse_results(framework: Framework, output_dir: Path) -> EvaluationResult:
    """What the harness's `output.py` finds in `output_dir`; without one, what the engine's summary says.

    Raises:
        ResultsError: nothing there, the parser failed, or a score is not a finite number.
    """
    parser = _find_parser(framework)
    result = _call(parser, framework, output_dir) if parser else _from_summary(read_summary(output_dir), output_dir)
    try:
        result.refuse_non_finite()
    except ValueError as error:
        raise ResultsError(f"{framework.name} gave a score that is no number: {error}") from error
    _drop_non_finite_stats(result)
    if not scores(result):
        raise ResultsError(f"{framework.name} left no scores in {output_dir}")
    return result


def read_summary(output_dir: Path) -> dict[str, Any] | None:
    """The engine's summary; None when the harness is not a native one.

    Raises:
        ResultsError: the file is damaged.
    """
    file = output_dir / SUMMARY_FILE
    try:
        summary = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file}: cannot be read: {error}") from error
    if not isinstance(summary, dict):
        raise ResultsError(f"{file}: holds a {type(summary).__name__}, not an object")
    return summary


def _find_parser(framework: Framework) -> _Parser | None:
    file = framework.folder / "output.py"
    if not file.is_file():
        return None
    with _third_party(f"{file}: cannot be imported"):
        module = _import_package(framework) if framework.origin == "package" else _import_file(file, framework)
    parser: _Parser | None = getattr(module, "parse_output", None)
    if parser is None:
        raise ResultsError(f"{file}: has no function parse_output(output_dir)")
    return parser


@contextlib.contextmanager
def _third_party(failure: str, hint: str = "") -> Iterator[None]:
    """Run a third party's code: what it prints goes to standard error, whatever it raises means no results."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except EvaluatorError:
        raise
    except (Exception, SystemExit) as error:  # whatever somebody else's code raises, there are no results
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise ResultsError(f"{failure}: {kind}{error}{hint}") from error


def _import_package(framework: Framework) -> ModuleType:
    parent = framework.folder.parent.name
    package = NAMESPACE if parent == NAMESPACE else "nemo_evaluator"
    return importlib.import_module(f"{package}.{framework.folder.name}.output")


def _import_file(file: Path, framework: Framework) -> ModuleType:
    name = f"nemo_evaluator_harness_{framework.pkg_name}_output"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _call(parser: _Parser, framework: Framework, output_dir: Path) -> EvaluationResult:
    failure = f"{framework.name}'s parser found no usable results in {output_dir}"
    with _third_party(failure, f". The harness's own output is in {output_dir / 'logs'}"):
        result = parser(str(output_dir))
        if isinstance(result, EvaluationResult):
            # Models may have been constructed without checks.
            return EvaluationResult.model_validate(result.model_dump(warnings=False))
    raise ResultsError(f"{framework.name}'s parser returned a {type(result).__name__}, not an EvaluationResult")


def _from_summary(summary: dict[str, Any] | None, output_dir: Path) -> EvaluationResult:
    if summary is None:
        raise ResultsError(f"{output_dir / SUMMARY_FILE} is missing: the harness ended without results")
    try:
        return EvaluationResult.model_validate(summary["results"])
    except (KeyError, ValidationError) as error:
        raise ResultsError(f"{output_dir / SUMMARY_FILE}: {error}") from error


def _drop_non_finite_stats(result: EvaluationResult) -> None:
    """Statistics that cannot be computed (the spread of one sample) are absent, not NaN."""
    for score in scores(result):
        for name, value in score.stats:
            if isinstance(value, float) and not math.isfinite(value):
                setattr(score.stats, name, None)


def scores(result: EvaluationResult) -> list[Score]:
    """All scores of `result`, those of nested groups included."""
    pending: list[TaskResult | GroupResult] = [*(result.tasks or {}).values(), *(result.groups or {}).values()]
    found: list[Score] = []
    while pending:
        entry = pending.pop()
        found += [score for metric in entry.metrics.values() for score in metric.scores.values()]
        if isinstance(entry, GroupResult):
            pending += (entry.groups or {}).values()
    return found


def set_previous_aside(output_dir: Path) -> None:
    """Take an earlier run's results away, so that a failing run never seems to have produced them."""
    file = output_dir / RESULTS_FILE
    if file.exists():
        file.replace(output_dir / PREVIOUS_FILE)


@contextlib.contextmanager
def without_former_summary(output_dir: Path, *, is_kept: bool) -> Iterator[None]:
    """Take the engine's summary of an earlier start away, so that it is never taken for that of this one.

    Args:
        output_dir: the folder of the run.
        is_kept: bring it back when the block fails.
    """
    file = output_dir / SUMMARY_FILE
    former = file.read_bytes() if is_kept and file.exists() else None
    file.unlink(missing_ok=True)
    try:
        yield
    except BaseException:
        if former is not None:
            write_atomically(file, former)
        raise


def write_results(output_dir: Path, document: dict[str, Any]) -> Path:
    """Write `results.yml` whole or not at all: keys sorted, nulls left out."""
    file = output_dir / RESULTS_FILE
    write_atomically(file, strict_yaml.dumps(_without_nulls(document), sort_keys=True))
    return file


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
