"""One evaluation from its settings to its result files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from nemo_evaluator import env, strict_yaml
from nemo_evaluator.adapters.context import EndKind, Ends
from nemo_evaluator.adapters.metrics_server import MetricsListener, serving_metrics
from nemo_evaluator.adapters.post_eval_report import report_settings
from nemo_evaluator.adapters.proxy import ProxyOptions, running_proxy
from nemo_evaluator.adapters.redaction import redact_url
from nemo_evaluator.adapters.route import Route
from nemo_evaluator.adapters.routes import at, replaced_parameters, resolve_routes
from nemo_evaluator.adapters.stats import ProxyStats
from nemo_evaluator.api.adapter_config import AdapterConfig
from nemo_evaluator.api.api_dataclasses import EvaluationConfig, EvaluationResult, EvaluationTarget
from nemo_evaluator.core import output_folder, results
from nemo_evaluator.core.available import get_available_evaluations
from nemo_evaluator.core.coverage import coverage, refuse_unanswered
from nemo_evaluator.core.definitions import discover
from nemo_evaluator.core.document import document, written_command
from nemo_evaluator.core.endpoint_keys import check_keys
from nemo_evaluator.core.fingerprint import FINGERPRINT, fingerprint
from nemo_evaluator.core.former_run import RUN_CONFIG_FILE, refuse_other_run
from nemo_evaluator.core.harness_environment import harness_environment
from nemo_evaluator.core.layers import Layer, Settings
from nemo_evaluator.core.live import LiveLine, Observer
from nemo_evaluator.core.lock import hold
from nemo_evaluator.core.metadata import write_metadata
from nemo_evaluator.core.preflight import check
from nemo_evaluator.core.provenance import provenance
from nemo_evaluator.core.render import render_command
from nemo_evaluator.core.replay import replayed
from nemo_evaluator.core.report import remove_report, write_report
from nemo_evaluator.core.resolve import Resolved, resolve
from nemo_evaluator.core.runtime_metrics import record
from nemo_evaluator.core.stop_signal import StopSignal
from nemo_evaluator.core.supervise import HarnessExit, supervise
from nemo_evaluator.core.watch import Watch
from nemo_evaluator.errors import (
    BudgetError,
    DataError,
    EndpointAwayError,
    EndpointError,
    EvaluatorError,
    HarnessError,
    InterruptedRun,
    UsageError,
)
from nemo_evaluator.files import write_atomically

__all__ = ["Outcome", "RunOptions", "evaluate", "get_available_evaluations", "run"]

LOGS_FOLDER = "logs"
ENGINE_COMMAND = "nemo-evaluator engine run"
_ENGINE_ERRORS: Mapping[int, type[EvaluatorError]] = {
    kind.exit_code: kind for kind in (UsageError, EndpointError, DataError)
}
_ENDS: Mapping[EndKind, type[EvaluatorError]] = {
    "endpoint": EndpointError,
    "outage": EndpointAwayError,
    "budget": BudgetError,
    "store": DataError,
    "interceptor": HarnessError,
}
"""What an end of the run is that an interceptor asked for, by whose doing it is."""

_log = logging.getLogger(__name__)

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run, beside what the configuration says."""

    preflight: bool = True
    replay: bool = False
    """Take answers from the store alone: no endpoint is asked, and one that is not there ends the run."""
    notify: Notify = field(default=lambda _message: None)
    """Called with a sentence that the user should see."""
    echo: BinaryIO | None = None
    """Where the harness's output goes as it comes."""
    echo_is_terminal: bool = False
    progress: Observer | None = None
    """Shows the run's progress; a `LiveLine` does it in the stream `echo`."""
    stop: StopSignal | None = None
    """Ends the run early; None: signals do, in the main thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run found and where it stands."""

    result: EvaluationResult
    coverage: Mapping[str, Any]
    results_file: Path
    output_dir: Path


def evaluate(
    eval_cfg: EvaluationConfig | EvaluationTarget,
    target_cfg: EvaluationTarget | EvaluationConfig,
    metadata: Mapping[str, Any] | AdapterConfig | None = None,
    adapter_cfg: AdapterConfig | None = None,
    *,
    replay: bool = False,
) -> EvaluationResult:
    """Run one evaluation and return its results; files are written to `eval_cfg.output_dir`.

    Works in any thread. What the user should know is logged as a warning. The documents call it with the two
    configurations in either order and with the adapter configuration third, so these are told apart by type.

    Args:
        eval_cfg: which benchmark, with which parameters, and where its files go.
        target_cfg: the endpoint.
        metadata: free-form metadata; `versioning` in it is extended and goes to `results.yml`.
        adapter_cfg: used instead of `target_cfg.api_endpoint.adapter_config`.
        replay: take answers from the store of an earlier run alone; no endpoint is asked.

    Raises:
        EvaluatorError: one of its subclasses says what was wrong and what to do.
    """
    if isinstance(metadata, AdapterConfig):
        adapter_cfg, metadata = metadata, None
    if isinstance(eval_cfg, EvaluationTarget) and isinstance(target_cfg, EvaluationConfig):
        eval_cfg, target_cfg = target_cfg, eval_cfg
    values: dict[str, Any] = {
        "config": eval_cfg.model_dump(mode="python", exclude_unset=True, exclude_none=True),
        "target": target_cfg.model_dump(mode="python", exclude_unset=True, exclude_none=True),
    }
    if adapter_cfg is None and isinstance(target_cfg, EvaluationTarget) and target_cfg.api_endpoint is not None:
        adapter_cfg = target_cfg.api_endpoint.adapter_config
    if adapter_cfg is not None:
        # It leaves out by itself what was not set; lists that were appended to, and nulls among parameters, stay.
        endpoint = values["target"].setdefault("api_endpoint", {})
        endpoint["adapter_config"] = adapter_cfg.model_dump(mode="python")
    if metadata:
        values["metadata"] = dict(metadata)
    settings = Settings((Layer("the arguments of evaluate()", values),))
    return run(resolve(settings, discover()), RunOptions(notify=_log.warning, replay=replay)).result


def run(resolved: Resolved, options: RunOptions) -> Outcome:
    """Run a resolved evaluation.

    Raises:
        EvaluatorError: the run failed; nothing that was finished is lost, and no `results.yml` says otherwise.
    """
    # What cannot be rendered is found before anything is made or asked.
    render_command(resolved.evaluation)
    for notice in resolved.notices:
        options.notify(notice)
    assert resolved.evaluation.config.output_dir is not None
    output_dir = Path(resolved.evaluation.config.output_dir)
    stop = options.stop or StopSignal()
    routes = resolve_routes(resolved.evaluation, output_dir)
    if options.replay:
        routes = replayed(routes, output_dir)
    endpoint = resolved.evaluation.target.api_endpoint
    adapter = endpoint.adapter_config if endpoint else None
    # A port in use is found before anything is made or asked.
    with serving_metrics(adapter.metrics_port if adapter else None) as metrics:
        output_folder.create(output_dir)
        with stop.handling(), hold(output_dir) as lock:
            return _Run(
                resolved, options, routes=routes, stop=stop, output_dir=output_dir, lock=lock, metrics=metrics
            ).run()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ran:
    """A harness that has ended, and what its proxy saw."""

    ended: HarnessExit
    stats: ProxyStats
    others: Mapping[str, ProxyStats]
    """What it saw on the way to judges, by their names."""
    ends: Ends
    """Why an interceptor ended the run, if one did."""
    proxy_served: bool
    """Whether the proxy was there to the end."""


class _Run:
    """The stages of one run, in order; what a later stage needs of an earlier one is an attribute."""

    def __init__(
        self,
        resolved: Resolved,
        options: RunOptions,
        *,
        routes: tuple[Route, ...],
        stop: StopSignal,
        output_dir: Path,
        lock: int,
        metrics: MetricsListener | None,
    ) -> None:
        self.resolved = resolved
        self.evaluation = resolved.evaluation
        self.options = options
        self.stop = stop
        self.output_dir = output_dir
        self.lock = lock
        self.metrics = metrics
        self.started = time.time()
        endpoint = self.evaluation.target.api_endpoint
        assert endpoint is not None
        self.routes = routes
        self.watch = Watch(
            output_dir,
            stop=stop,
            about={
                "framework": resolved.framework.name,
                "task": self.evaluation.config.type,
                "model": endpoint.model_id,
            },
            observer=options.progress,
        )
        if metrics:
            metrics.text = self.watch.metrics
            options.notify(f"metrics are served at {metrics.url}")

    def run(self) -> Outcome:
        written = document(self.evaluation)
        mark = fingerprint(self.routes, os.environ)
        recognised = {**written, FINGERPRINT: mark} if mark else written
        # A start that is refused leaves what the folder says of the former one.
        refuse_other_run(self.output_dir, recognised)
        with self.watch, output_folder.naming_full_disk(self.output_dir):
            return self.run_watched(written, recognised)

    def run_watched(self, written: dict[str, Any], recognised: dict[str, Any]) -> Outcome:
        """The run itself, while its status is told."""
        if self.options.preflight:
            self.watch.enter("preflight")
            self.preflight()
        self.stop.raise_if_requested()
        # A replay that finds no answer has nothing to put in the place of what the run found.
        with results.without_former_summary(self.output_dir, is_kept=self.options.replay):
            if not self.options.replay:
                self.set_former_aside()
            write_atomically(self.output_dir / RUN_CONFIG_FILE, strict_yaml.dumps(recognised, sort_keys=True))
            return self.scored(self.harness(), written)

    def set_former_aside(self) -> None:
        """Take away what an earlier start found."""
        results.set_previous_aside(self.output_dir)
        remove_report(self.output_dir)

    def scored(self, ran: _Ran, written: dict[str, Any]) -> Outcome:
        """What the harness that ran found, written."""
        record(
            self.output_dir,
            ran.ended,
            response_stats=ran.stats.as_response_stats(),
            reasoning=ran.stats.reasoning,
            blocks=ran.stats.blocks,
        )
        self.refuse_failure(ran)
        result = results.parse_results(self.resolved.framework, self.output_dir)
        self.stop.raise_if_requested()
        with self.stop.deferred():
            return self.write(result, written, ran)

    def preflight(self) -> None:
        """Check everything that can be checked before anything is spent."""
        template = self.resolved.framework.harness.get("preflight")
        found = check(
            self.evaluation,
            output_dir=self.output_dir,
            environ=harness_environment(os.environ, self.resolved.framework.folder),
            data_check=render_command(self.evaluation, template=template) if template else None,
            notify=self.options.notify,
            stop=self.stop,
            endpoint=not self.options.replay,
        )
        if not self.options.replay:
            check_keys(self.routes, os.environ)
            self.routes = at(self.routes, found.effective_url)

    def harness(self) -> _Ran:
        """Run the harness behind the proxy."""
        params = self.evaluation.config.params
        model, *others = self.routes
        proxy_options = ProxyOptions(
            output_dir=self.output_dir, replay_only=self.options.replay, on_end=self.stop.end_from_within
        )
        progress = self.options.progress
        with (
            running_proxy(model, others=others, options=proxy_options) as proxy,
            self.watch.observing(proxy, metrics_url=self.metrics.url if self.metrics else None),
        ):
            urls = {name: proxy.url_of(name) for name in proxy.names}
            command = render_command(self.evaluation, url=proxy.url, replaced=replaced_parameters(self.routes, urls))
            ended = supervise(
                command,
                cwd=Path.cwd(),
                env=harness_environment(
                    os.environ,
                    self.resolved.framework.folder,
                    terminal=self.options.echo_is_terminal,
                    shown=progress is not None,
                ),
                logs=self.output_dir / LOGS_FOLDER,
                time_limit=params.time_limit if params else None,
                echo=self.options.echo,
                stop=self.stop,
                hold_open=(self.lock,),
                line=progress if isinstance(progress, LiveLine) else None,
            )
            return _Ran(
                ended=ended,
                stats=proxy.stats(),
                others={name: proxy.stats(name) for name in proxy.names[1:]},
                ends=proxy.ends,
                proxy_served=proxy.is_serving,
            )

    def refuse_failure(self, ran: _Ran) -> None:
        """Raise the error that says best why there are no results."""
        if ran.ends.reason is not None:
            raise _ENDS[ran.ends.kind or "interceptor"](ran.ends.reason)
        if ran.ended.interrupted_by is not None:
            raise InterruptedRun(ran.ended.interrupted_by, reason=self.stop.reason)
        if not ran.proxy_served:
            raise HarnessError("the adapter proxy broke down during the run, so the answers cannot be trusted")
        # The engine's exit codes are ours, and a summary counts the answers of earlier starts too: where there are
        # scored ones, what failed in this start alone does not make the run a failure.
        native = ENGINE_COMMAND in self.evaluation.command
        summary = results.read_summary(self.output_dir) or {}
        kept = (summary.get("coverage") or {}).get("scored")
        if not kept and not (native and ran.ended.failure):
            refuse_unanswered(ran.stats)
            for name, stats in ran.others.items():
                refuse_unanswered(stats, endpoint=f"the endpoint {name!r}")
        if ran.ended.failure is not None:
            log = self.output_dir / LOGS_FOLDER / "harness.log"
            error = _ENGINE_ERRORS.get(ran.ended.returncode, HarnessError) if native else HarnessError
            raise error(
                f"the harness {self.resolved.framework.name} {ran.ended.failure}. Its last lines ({log} has more):\n"
                f"{ran.ended.tail}"
            )

    def write(self, result: EvaluationResult, written: dict[str, Any], ran: _Ran) -> Outcome:
        """Write the result files, `results.yml` last."""
        effective_url = redact_url(self.routes[0].upstream.url)
        summary = results.read_summary(self.output_dir)
        covered = coverage(summary, ran.stats, ran.others)
        self.watch.plan(covered.get("planned"))
        metadata = write_metadata(self.output_dir, self.resolved.metadata)
        self.set_former_aside()
        results_file = results.write_results(
            self.output_dir,
            {
                # The endpoint's URL, as the user knows it; what really ran, through the proxy, was the same otherwise.
                "command": written_command(self.evaluation, written),
                "config": written["config"],
                "target": written["target"],
                "git_hash": env.get(env.GIT_HASH),
                "results": result.model_dump(mode="json"),
                "metadata": metadata,
                "coverage": covered,
                "provenance": provenance(
                    self.resolved.framework,
                    written,
                    command=written_command(self.evaluation, written, url=effective_url),
                    effective_url=effective_url,
                    routes=self.routes,
                    data=(summary or {}).get("data"),
                    started=self.started,
                ),
            },
        )
        self.report()
        return Outcome(result=result, coverage=covered, results_file=results_file, output_dir=self.output_dir)

    def report(self) -> None:
        """Write the page about the run; the run stands without one."""
        endpoint = self.evaluation.target.api_endpoint
        settings = report_settings(endpoint.adapter_config if endpoint else None)
        if not settings.types:
            return
        try:
            size = {} if settings.size is None else {"most_requests": settings.size}
            write_report(self.output_dir, types=settings.types, **size)
        except Exception as error:  # noqa: BLE001  the results stand already, and no picture of them may undo that
            known = isinstance(error, OSError | ValueError)
            what = str(error) if known else f"{type(error).__name__}: {error}"
            self.options.notify(f"the report could not be written: {what}")
