"""Looks at everything that a run needs before anything is spent on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemo_evaluator.adapters.routes import resolve_routes
from nemo_evaluator.api.api_dataclasses import ApiEndpoint, Evaluation
from nemo_evaluator.core import output_folder
from nemo_evaluator.core.api_key import read_key
from nemo_evaluator.core.capabilities import CAPABILITIES, Capability, find_capabilities, try_capability
from nemo_evaluator.core.chain_headers import headers_of_chain
from nemo_evaluator.core.endpoint_forms import Kind, kind_of_type
from nemo_evaluator.core.endpoint_probe import EndpointProbe, Finding
from nemo_evaluator.core.http_exchange import HttpClient
from nemo_evaluator.core.stop_signal import StopSignal
from nemo_evaluator.core.supervise import supervise
from nemo_evaluator.errors import DataError, EndpointError, EvaluatorError, InterruptedRun, MisconfigurationError

REQUEST_SECONDS = 30.0
WAIT_SECONDS = 10.0
"""Model servers start slowly: how long one that refuses connections is waited for."""
DATA_CHECK_SECONDS = 300.0
DATA_CHECK_LOG = "data_check.log"
_SENTENCE_LINES = 5
# The most fitting of several errors is the one that the user can put right without leaving the command line.
_PRECEDENCE = (MisconfigurationError, EndpointError, DataError)

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What was found."""

    effective_url: str
    """The URL to use: the one given, or the full one that it stood for. Empty when the evaluation has none."""
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    """Those that were tried, and whether the endpoint has them."""
    notes: tuple[str, ...] = ()
    """Sentences that the user was told."""


def check(
    evaluation: Evaluation,
    *,
    output_dir: Path,
    environ: Mapping[str, str],
    data_check: str | None,
    notify: Notify,
    wait: float = WAIT_SECONDS,
    stop: StopSignal | None = None,
    endpoint: bool = True,
) -> Preflight:
    """Check the output directory, the key, the endpoint with its type and capabilities, and the data.

    Everything is looked at before the first problem is reported; without a usable key no request is sent.

    Args:
        evaluation: the resolved evaluation.
        output_dir: made when missing.
        environ: where keys are looked up, and the environment of the harness's own check.
        data_check: script of the harness that fails with a sentence on stderr when its data are not available.
        notify: called with each sentence that the user should see.
        wait: seconds to wait for an endpoint that refuses connections.
        stop: ends the waiting early; None: nothing does.
        endpoint: whether the endpoint is looked at, and the key for it.

    Raises:
        MisconfigurationError: folder, key, URL or capability names; the message lists all problems that were found.
        EndpointError: the endpoint cannot be used as declared.
        DataError: the harness says that its data are not available.
        InterruptedRun: a stop was requested.
    """
    run = _Checks(evaluation, environ=environ, notify=notify, wait=wait, stop=stop)
    has_folder = run.collect(lambda: _check_folder(output_dir))
    run.collect(run.find_required)
    if endpoint:
        run.collect(run.check_endpoint)
    if data_check is not None and has_folder:
        run.collect(lambda: run.check_data(data_check, output_dir / "logs"))
    run.raise_problems()
    return Preflight(effective_url=run.url, capabilities=run.capabilities, notes=tuple(run.notes))


def _check_folder(output_dir: Path) -> None:
    output_folder.create(output_dir)
    problem = output_folder.problem(output_dir)
    if problem:
        raise MisconfigurationError(problem)


class _Checks:
    """The checks of one run and what they have found so far."""

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        environ: Mapping[str, str],
        notify: Notify,
        wait: float,
        stop: StopSignal | None,
    ) -> None:
        self._evaluation = evaluation
        self._environ = environ
        self._notify = notify
        self._wait = wait
        self._stop = stop
        self._problems: list[EvaluatorError] = []
        self._required: list[Capability] = []
        endpoint = evaluation.target.api_endpoint
        self.url = (endpoint and endpoint.url) or ""
        self.capabilities: dict[str, bool] = {}
        self.notes: list[str] = []

    def collect(self, check_one: Callable[[], None]) -> bool:
        """Run one check and keep what it finds wrong for later; whether all was well."""
        if self._stop is not None:
            self._stop.raise_if_requested()
        try:
            check_one()
        except InterruptedRun:
            raise
        except EvaluatorError as error:
            self._problems.append(error)
            return False
        return True

    def raise_problems(self) -> None:
        """Raise the most fitting error, with all problems in its message."""
        if not self._problems:
            return
        kind = next(
            (kind for kind in _PRECEDENCE if any(isinstance(problem, kind) for problem in self._problems)),
            type(self._problems[0]),
        )
        text = str(self._problems[0])
        if len(self._problems) > 1:
            text = "the run cannot start:\n" + "\n".join(f"  * {problem}" for problem in self._problems)
        if kind is not MisconfigurationError:
            text += "\n(--no_preflight starts the run without these checks)"
        raise kind(text)

    def find_required(self) -> None:
        """The capabilities that the task asks for."""
        self._required = find_capabilities(self._evaluation.config.required_capabilities or [])

    def check_endpoint(self) -> None:
        """Key, reachability, type, capabilities."""
        endpoint = self._evaluation.target.api_endpoint
        if endpoint is None or not endpoint.url:
            return
        probe = self._probe(endpoint)
        kind = kind_of_type(endpoint.type)
        if kind is None or endpoint.model_id is None:
            self._take(probe.reach(endpoint.url))
            return
        self._take(probe.find(endpoint.url, kind))
        self._check_capabilities(probe, kind=kind, endpoint=endpoint)

    def _probe(self, endpoint: ApiEndpoint) -> EndpointProbe:
        params = self._evaluation.config.params
        patience = (params and params.request_timeout) or REQUEST_SECONDS
        key = read_key(endpoint.api_key_name, self._environ)
        return EndpointProbe(
            HttpClient(key=key, timeout=min(patience, REQUEST_SECONDS), headers=self._headers(endpoint, key)),
            model_id=endpoint.model_id or "",
            key_name=endpoint.api_key_name,
            wait=self._wait,
            notify=self._notify,
            stop=self._stop or StopSignal(),
        )

    def _headers(self, endpoint: ApiEndpoint, key: str | None) -> Mapping[str, str]:
        """The headers that the run's own requests will have: a gateway may want some, or another key."""
        if endpoint.adapter_config is None:
            return {}
        route = resolve_routes(self._evaluation, self._evaluation.config.output_dir or "")[0]
        return headers_of_chain(route, {"Authorization": f"Bearer {key}"} if key else {}, environ=self._environ)

    def _take(self, finding: Finding) -> None:
        self.url = finding.url
        for note in finding.notes:
            self._tell(note)
        if finding.problem:
            raise EndpointError(finding.problem)

    def _tell(self, note: str) -> None:
        self.notes.append(note)
        self._notify(note)

    def _check_capabilities(self, probe: EndpointProbe, *, kind: Kind, endpoint: ApiEndpoint) -> None:
        required = {capability.name: capability for capability in self._required}
        if endpoint.type == "completions_logprob":
            required.setdefault("logprobs", CAPABILITIES["logprobs"])
        # Declared to see pictures; whether this task shows any is not known here, so a lack is only said.
        wanted = {"image_url": CAPABILITIES["image_url"]} if endpoint.type == "vlm" else {}
        absent: list[str] = []
        for name, capability in {**wanted, **required}.items():
            trial = try_capability(probe, capability, url=self.url, kind=kind, model_id=endpoint.model_id or "")
            if trial.present is None:
                self._tell(f"whether the endpoint has the capability {name!r} could not be seen: {trial.reason}")
                continue
            self.capabilities[name] = trial.present
            if not trial.present and name in required:
                absent.append(f"{name} ({capability.description}): {trial.reason}")
            elif not trial.present:
                self._tell(f"the endpoint does not have the capability {name!r}: {trial.reason}")
        if absent:
            raise EndpointError(f"the endpoint lacks a capability that this task needs: {'; '.join(absent)}")

    def check_data(self, script: str, logs: Path) -> None:
        """Run the harness's own check of its data."""
        ended = supervise(
            # Only what it says on stderr is for the user.
            f"exec >/dev/null\n{script}",
            cwd=Path.cwd(),
            env=self._environ,
            logs=logs,
            log_name=DATA_CHECK_LOG,
            time_limit=DATA_CHECK_SECONDS,
            stop=self._stop,
        )
        if ended.interrupted_by is not None:
            raise InterruptedRun(ended.interrupted_by)
        if ended.timed_out:
            raise DataError(
                f"whether the data of this task are available could not be seen within {DATA_CHECK_SECONDS:g} s"
            )
        if ended.returncode != 0:
            said = _sentence(ended.tail) or f"the check {ended.failure}, and said nothing"
            raise DataError(f"the data of this task are not available: {said}")


def _sentence(tail: str) -> str:
    """What a check said last; of a traceback only the error."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    if any(line.startswith("Traceback ") for line in lines):
        lines = lines[-1:]
    return " ".join(lines[-_SENTENCE_LINES:]).removeprefix("Error: ")
