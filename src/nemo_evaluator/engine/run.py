"""A run of a native benchmark from its parameters to `summary.json`, and the check of its data."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

import nemo_evaluator
from nemo_evaluator import env
from nemo_evaluator.engine.aggregate import Aggregator
from nemo_evaluator.engine.benchmark import Task
from nemo_evaluator.engine.client import Endpoint
from nemo_evaluator.engine.data import DataFiles, find_data, identity
from nemo_evaluator.engine.evaluation import Limits, evaluate
from nemo_evaluator.engine.identity import claim
from nemo_evaluator.engine.loading import fingerprint, load_task
from nemo_evaluator.engine.options import SplitOptions, split_options
from nemo_evaluator.engine.plan import make_plan, read_samples
from nemo_evaluator.engine.progress import ProgressCallback
from nemo_evaluator.engine.protocol import ModelType, RequestSettings
from nemo_evaluator.engine.records import RecordFile
from nemo_evaluator.errors import EndpointError, HarnessError, UsageError
from nemo_evaluator.files import write_atomically

SUMMARY_NAME = "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """All parameters of a run; None leaves a sampling parameter to the server."""

    benchmark: Path
    """Folder that holds `benchmark.py`."""
    task: str
    """Bare name of the task."""
    model: str
    url: str
    model_type: ModelType
    output_dir: Path
    api_key_name: str | None = None
    """Name of the environment variable with the key; None for an endpoint without one."""
    parallelism: int = 10
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    max_retries: int = 5
    request_timeout: float = 60.0
    """Seconds for one attempt of a request."""
    limit_samples: float | None = None
    """The first so many samples; below 1, this fraction of all."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """`config.params.extra`: the engine's options (`EngineOptions`) and the benchmark's own."""
    scoring_threads: int | None = None
    """Answers scored at once where scoring is slow; None takes the number of processors."""

    def __post_init__(self) -> None:
        for name, least in (("parallelism", 1), ("max_retries", 0), ("request_timeout", 0.001), ("scoring_threads", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise UsageError(f"{name} must be at least {least} and finite, not {value}")
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{name} must be a finite number, not {value}")
        limit = self.limit_samples
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(f"limit_samples must be more than 0 and finite, not {limit}")
        if limit is not None and limit > 1 and limit != int(limit):
            raise UsageError(f"limit_samples must be a whole number or a fraction below 1, not {limit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run found; the content of `summary.json`."""

    results: Mapping[str, Any]
    """An `EvaluationResult` as plain data."""
    coverage: Mapping[str, int]
    data: Mapping[str, Any]
    usage: Mapping[str, int]
    """Tokens as the endpoint counted them, over the scored answers."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"results": self.results, "coverage": self.coverage, "data": self.data, "usage": self.usage}


def run(parameters: EngineRun, *, progress: ProgressCallback | None = None) -> Summary:
    """Ask a benchmark's samples, score the answers, and write `samples.jsonl` and `summary.json`.

    Started again with the same output directory it asks only what was not scored before. `limit_samples` may grow
    between two starts; what makes answers different may not change (see `identity.claim`).

    Raises:
        UsageError: a parameter is wrong, or the output directory belongs to another run.
        DataError: the dataset cannot be had.
        EndpointError: the endpoint cannot be used, or every request failed because of it.
        HarnessError: more than `max_failed_fraction` of the answers failed.
        InterruptedRun: SIGTERM or SIGINT came; what was finished is kept.
    """
    options = split_options(parameters.options)
    settings = _settings(parameters, options)
    endpoint = Endpoint(url=parameters.url, model_type=parameters.model_type, api_key=_api_key(parameters.api_key_name))
    task = load_task(parameters.benchmark, parameters.task, options.benchmark)
    data = _find(task, options)
    facts = data.facts()
    plan = make_plan(
        task,
        data.splits(),
        model_type=parameters.model_type,
        limit=parameters.limit_samples,
        repeats=options.engine.n_samples,
    )
    folder = parameters.output_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: the output directory cannot be made: {error.strerror}") from error
    limits = _limits(parameters)
    client = limits.client(endpoint, planned=plan.answers)
    with RecordFile(folder, planned=plan.answers) as records:
        claim(folder, _identity(parameters, task, options=options, settings=settings, facts=facts))
        records.resume(plan.place_of)
        # From here on the former summary is out of date; a start that is refused before leaves it.
        (folder / SUMMARY_NAME).unlink(missing_ok=True)
        aggregator = evaluate(plan, client, settings=settings, records=records, limits=limits, progress=progress)
    _refuse_failures(aggregator, options.engine.max_failed_fraction)
    summary = Summary(
        results=aggregator.results(parameters.task),
        coverage=aggregator.coverage.as_dict(),
        data=facts,
        usage=dict(aggregator.usage),
    )
    write_atomically(folder / SUMMARY_NAME, orjson.dumps(summary.as_dict(), option=orjson.OPT_INDENT_2) + b"\n")
    return summary


def check_data(benchmark: Path, task: str, *, options: Mapping[str, Any]) -> str:
    """Check, cheaply, that the data of a task can be had: in the cache, in local files, or with one small request.

    Args:
        benchmark: folder that holds `benchmark.py`.
        task: its bare name.
        options: as `EngineRun.options`.

    Returns:
        Which data they are, in a few words.

    Raises:
        DataError: they cannot be had; says why and what to do.
    """
    split = split_options(options)
    loaded = load_task(benchmark, task, split.benchmark)
    data = _find(loaded, split)
    for name in data.source.files:
        data.probe(name)
    if data.repository is None:
        # Files of the user's own may be of another dataset: making one sample finds that out.
        next(read_samples(loaded, data.splits()), None)
    return data.description


def _settings(parameters: EngineRun, options: SplitOptions) -> RequestSettings:
    return RequestSettings(
        model=parameters.model,
        model_type=parameters.model_type,
        temperature=parameters.temperature,
        top_p=parameters.top_p,
        max_new_tokens=parameters.max_new_tokens,
        system_prompt=options.engine.system_prompt,
        seed=options.engine.seed,
    )


def _identity(
    parameters: EngineRun, task: Task, *, options: SplitOptions, settings: RequestSettings, facts: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "task": parameters.task,
        "nemo_evaluator": nemo_evaluator.__version__,
        "benchmark": fingerprint(parameters.benchmark),
        "dataset": identity(facts),
        "options": dict(getattr(task, "options", options.benchmark)),
        "model": settings.model,
        "model_type": settings.model_type,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_new_tokens": settings.max_new_tokens,
        "system_prompt": settings.system_prompt,
        "seed": settings.seed,
        "n_samples": options.engine.n_samples,
    }


def _limits(parameters: EngineRun) -> Limits:
    return Limits(
        parallelism=parameters.parallelism,
        max_retries=parameters.max_retries,
        request_timeout=parameters.request_timeout,
        scoring_threads=parameters.scoring_threads or len(os.sched_getaffinity(0)),
    )


def _find(task: Task, options: SplitOptions) -> DataFiles:
    return find_data(task.source, dataset=options.engine.dataset, revision=options.engine.dataset_revision)


def _api_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = env.get(name)
    if key is None:
        raise UsageError(f"the environment variable {name}, which is to hold the API key, is not set or empty")
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"the API key in {name} has characters that no key has (a line break?)")
    return key


def _refuse_failures(aggregator: Aggregator, allowed: float) -> None:
    coverage = aggregator.coverage
    if coverage.scored + coverage.failed != coverage.planned:
        raise HarnessError(
            f"{coverage.planned} answers were planned, and {coverage.scored} scored and {coverage.failed} failed are "
            "recorded: the records were changed during the run. Starting again asks for what is missing"
        )
    if coverage.scored and coverage.failed <= allowed * coverage.planned:
        return
    reason, count = aggregator.failures.most_common(1)[0]
    message = (
        f"{coverage.failed} of {coverage.planned} answers could not be had (at most {allowed:.0%} may fail: "
        f"config.params.extra.max_failed_fraction); the commonest reason, {count} times: {reason}. "
        "Starting again asks only for what is missing"
    )
    raise EndpointError(message) if aggregator.only_endpoint_failed else HarnessError(message)
