"""Writes `report.html` and `report.json` beside the results of a run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters.ledger import LEDGER_FILE
from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.core.report.facts import Report, collect
from nemo_evaluator.core.report.page import render
from nemo_evaluator.core.report.requests import MAX_SHOWN
from nemo_evaluator.core.report.samples import read_samples
from nemo_evaluator.core.results import RESULTS_FILE
from nemo_evaluator.core.run_store import store_of_run
from nemo_evaluator.core.runtime_metrics import METRICS_FILE
from nemo_evaluator.errors import EvaluatorError, MisconfigurationError
from nemo_evaluator.files import write_atomically

PAGE_FILE = "report.html"
DATA_FILE = "report.json"


def write_report(
    output_dir: Path,
    *,
    types: Collection[str] = ("html", "json"),
    most_requests: int = MAX_SHOWN,
) -> Path:
    """Write the report of the finished run in `output_dir`.

    The page needs nothing but itself: no network, no other file. Memory does not grow with the number of samples,
    but for two numbers of each.

    Args:
        output_dir: the folder of the run.
        types: which files: `html`, the page, and `json`, its data.
        most_requests: how many of them the page shows.

    Returns:
        The page's file.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: `results.yml` or another file of the run is not what a run writes.
    """
    report = _collect(output_dir, most_requests)
    if "json" in types:
        data = json.dumps(report.as_data(), indent=2, ensure_ascii=False, allow_nan=False)
        _write(output_dir / DATA_FILE, data + "\n")
    page = output_dir / PAGE_FILE
    if "html" in types:
        _write(page, render(report))
    return page


def remove_report(output_dir: Path) -> None:
    """Remove the report of an earlier run, so that it never stands beside a run that it does not describe."""
    for name in (PAGE_FILE, DATA_FILE):
        # What cannot be removed cannot be replaced later either, and then `write_report` says so.
        with contextlib.suppress(OSError):
            (output_dir / name).unlink()


def _collect(output_dir: Path, most_requests: int) -> Report:
    results_file = output_dir / RESULTS_FILE
    try:
        document = strict_yaml.loads(results_file.read_bytes(), source=str(results_file))
    except MisconfigurationError as error:
        raise ValueError(str(error)) from error
    try:
        with contextlib.ExitStack() as stack:
            reader = starts = None
            # A run may well have none: what it asked was not to be kept.
            with contextlib.suppress(MisconfigurationError):
                store = store_of_run(output_dir)
                reader, starts = stack.enter_context(StoreReader(store.path)), store.starts
            return collect(
                document,
                read_samples(output_dir),
                _metrics(output_dir),
                reader,
                starts=starts,
                most_requests=most_requests,
                currency=_currency(output_dir),
            )
    except EvaluatorError as error:
        raise ValueError(str(error)) from error
    except (AttributeError, KeyError, TypeError) as error:
        # The files may have been changed, or be another program's: that is for the caller to tell, like a bad value.
        raise ValueError(f"{results_file}: is not what a run writes: {type(error).__name__}: {error}") from error


def _metrics(output_dir: Path) -> dict[str, Any]:
    try:
        metrics: dict[str, Any] = json.loads((output_dir / METRICS_FILE).read_bytes())
    except FileNotFoundError:
        return {}
    return metrics


def _currency(output_dir: Path) -> str:
    """What the costs of the run are in; empty when it is not known."""
    try:
        currency = json.loads((output_dir / LEDGER_FILE).read_bytes())["currency"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return currency if isinstance(currency, str) else ""


def _write(path: Path, text: str) -> None:
    # Text of a model may hold halves of surrogate pairs, which UTF-8 cannot.
    write_atomically(path, text.encode("utf-8", "replace"))
