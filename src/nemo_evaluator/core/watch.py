"""The thread that tells how a run stands and does what `nemo-evaluator control` asks for."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nemo_evaluator.adapters.metrics import RunNumbers, metrics_text
from nemo_evaluator.adapters.proxy import RunningProxy
from nemo_evaluator.adapters.redaction import redact_text
from nemo_evaluator.adapters.stats import ProxyStats
from nemo_evaluator.adapters.steering import EndpointLimit
from nemo_evaluator.core.command_file import ANSWERS_KEPT, POLL_SECONDS, Answer, Command, CommandFile
from nemo_evaluator.core.live import Observer
from nemo_evaluator.core.rates import RecentRate
from nemo_evaluator.core.run_store import recorded_store, with_start
from nemo_evaluator.core.sample_count import SampleCount
from nemo_evaluator.core.status import FORMAT, moment, whereabouts, write_status
from nemo_evaluator.core.status_document import (
    UpstreamRates,
    samples_document,
    totals_document,
    upstream_document,
)
from nemo_evaluator.core.stop_signal import StopSignal
from nemo_evaluator.errors import EndpointAwayError, EvaluatorError, InterruptedRun, UsageError

WRITE_SECONDS = 1.0
JOIN_SECONDS = 10.0
"""How long a run that has ended waits for the thread that tells of it, which may hang in a file system or a stream."""
SAMPLES_FILE = "samples.jsonl"

_log = logging.getLogger(__name__)


class Watch:
    """Writes `status.json` each second from the beginning of the `with` block to its end, and answers commands.

    Args:
        output_dir: the run's folder, which it holds.
        stop: by which `stop` ends the run.
        about: what the run is: task, harness and model, for readers.
        observer: is told each status.
        join_seconds: how long to wait at the end for what is being written or told.
    """

    def __init__(
        self,
        output_dir: Path,
        *,
        stop: StopSignal,
        about: Mapping[str, Any],
        observer: Observer | None = None,
        join_seconds: float = JOIN_SECONDS,
    ) -> None:
        self._folder = output_dir
        self._stop = stop
        self._observer = observer
        self._commands = CommandFile(output_dir)
        self._waiting: Command | None = None
        self._answers: list[dict[str, Any]] = []
        self._state = "starting"
        self._ending: dict[str, Any] = {"ended": None, "exit_code": None, "reason": None}
        self._started, self._clock = time.time(), time.monotonic()
        self._about = {"format": FORMAT, **whereabouts(), **about, "started": moment(self._started)}
        self._metrics_url: str | None = None
        self._store = recorded_store(output_dir)
        self._proxy: RunningProxy | None = None
        self._stats: dict[str, ProxyStats] = {}
        self._limits: Mapping[str, EndpointLimit] = {}
        self._rates: dict[str, UpstreamRates] = {}
        self._planned: int | None = None
        self._samples = SampleCount(output_dir / SAMPLES_FILE)
        self._sample_rate = RecentRate()
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._write_failed = False
        self._join_seconds = join_seconds
        self._thread = threading.Thread(target=self._watch, name="run-watch", daemon=True)

    def __enter__(self) -> Self:
        self._commands.clear()
        self._tell()
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        # A second signal must not keep the last word from being written.
        with self._stop.deferred():
            self._is_over.set()
            self._thread.join(self._join_seconds)
            self._end(error)
            if self._thread.is_alive():
                # What holds it up would hold up this thread as well.
                _log.error("the end of the run cannot be told in %s: what was told before still hangs", self._folder)
            else:
                self._tell()

    def enter(self, state: str) -> None:
        """Say that a new part of the run begins."""
        self._state = state
        self._tell()

    def plan(self, planned: int | None) -> None:
        """Say how many samples there were to be, where the results tell: a run that had nothing left to ask did not."""
        self._planned = self._planned if planned is None else planned

    @contextlib.contextmanager
    def observing(self, proxy: RunningProxy, *, metrics_url: str | None = None) -> Iterator[None]:
        """Look at `proxy`, and let it be controlled, until the end of the block."""
        self._metrics_url = metrics_url
        with self._lock:
            self._proxy = proxy
            self._rates = {name: UpstreamRates() for name in proxy.names}
        self.enter("running")
        try:
            yield
        finally:
            with self._lock:
                self._look()
                self._proxy = None
            self._metrics_url = None

    def document(self) -> dict[str, Any]:
        """The status of this moment."""
        with self._lock:
            self._look()
            upstreams = {
                name: upstream_document(stats, rates=self._rates[name], limit=self._limits.get(name))
                for name, stats in self._stats.items()
            }
            paused = any(limit.paused for limit in self._limits.values())
            return {
                **self._about,
                "updated": moment(time.time()),
                "clock": round(time.monotonic(), 3),
                "elapsed_seconds": round(time.monotonic() - self._clock, 1),
                "state": self._seen_state(paused=paused),
                **self._ending,
                "metrics_url": self._metrics_url,
                "store": None if self._store is None else self._store.as_dict(),
                "samples": samples_document(
                    self._samples, planned=self._planned, rate=self._sample_rate, paused=paused
                ),
                "totals": totals_document(upstreams),
                "upstreams": upstreams,
                "answers": list(self._answers),
            }

    def metrics(self) -> str:
        """The numbers of this moment, for Prometheus."""
        with self._lock:
            self._look()
            limits = self._limits
            found = samples_document(self._samples, planned=self._planned, rate=self._sample_rate, paused=False)
            numbers = RunNumbers(
                samples_done=found["done"],
                samples_planned=self._planned,
                paused=any(limit.paused for limit in limits.values()),
                waiting={name: limit.waiting for name, limit in limits.items()},
                limits={name: limit.limit for name, limit in limits.items() if limit.limit is not None},
            )
            return metrics_text(self._stats, numbers)

    def _look(self) -> None:
        """Take in what can be seen now."""
        now = time.monotonic()
        self._samples.update()
        self._sample_rate.add(now, self._samples.done - self._samples.kept)
        if self._proxy is None:
            return
        self._planned = self._proxy.planned_samples or self._planned
        self._limits = self._proxy.steering.limits()
        if self._proxy.store is not None:
            self._store = with_start(self._store, *self._proxy.store, folder=self._folder)
        for name in self._proxy.names:
            self._stats[name] = self._proxy.stats(name)
            self._rates[name].add(now, self._stats[name])

    def _seen_state(self, *, paused: bool) -> str:
        if self._ending["ended"] is not None or self._state != "running":
            return self._state
        if self._stop.signal_number is not None:
            return "stopping"
        return "paused" if paused and self._proxy is not None else self._state

    def _watch(self) -> None:
        due = time.monotonic() + WRITE_SECONDS
        while not self._is_over.wait(POLL_SECONDS):
            answered = self._answer_command()
            if answered or time.monotonic() >= due:
                due = time.monotonic() + WRITE_SECONDS
                self._tell()

    def _tell(self) -> None:
        try:
            document = self.document()
            self._write(document)
            if self._observer is not None:
                self._observer.update(document)
        except InterruptedRun:
            # A signal came just now: it is about the run.
            raise
        except Exception as error:  # noqa: BLE001  sight of a run must not end it, whatever goes wrong with it
            _log.error("the status of the run could not be told: %s: %s", type(error).__name__, error)

    def _write(self, document: Mapping[str, Any]) -> None:
        try:
            write_status(self._folder, document)
            self._write_failed = False
        except OSError as error:
            # A full disk may have room again later; meanwhile one line is enough.
            if not self._write_failed:
                _log.warning("the status cannot be written to %s: %s", self._folder, error.strerror)
            self._write_failed = True

    def _answer_command(self) -> bool:
        try:
            self._waiting = self._commands.poll() or self._waiting
        except UsageError as error:
            _log.warning("%s", error)
            return False
        command = self._waiting
        # What is about requests waits until there are some.
        if command is None or (self._state != "running" and command.command != "stop"):
            return False
        self._waiting = None
        try:
            accepted, message = True, self._act(command)
        except EvaluatorError as error:
            accepted, message = False, str(error)
        except Exception as error:  # noqa: BLE001  whoever asked is told, and the run goes on
            accepted, message = False, f"{type(error).__name__}: {error}"
        answer = Answer(id=command.id, command=command.command, accepted=accepted, message=message)
        self._answers = [*self._answers, answer_document(answer)][-ANSWERS_KEPT:]
        return True

    def _act(self, command: Command) -> str:
        """Do it, and say what was done."""
        if command.command == "stop":
            self._stop.request(signal.SIGTERM, reason=f"stopped by `nemo-evaluator control stop` of {command.by}")
            return "stopping"
        with self._lock:
            proxy = self._proxy
        if proxy is None:
            raise EvaluatorError("the harness has ended, and its results are being written")
        if command.command == "pause":
            proxy.steering.pause()
            return "paused: no further request begins, those at the endpoint end"
        if command.command == "resume":
            proxy.steering.resume()
            return "running again"
        proxy.steering.set_concurrency(command.value, command.upstream)
        where = f" of {command.upstream}" if command.upstream else ""
        if command.value is None:
            return f"the limit{where} is off"
        return f"at most {command.value} requests{where} at once"

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self._state, code, reason = "finished", 0, None
        elif isinstance(error, InterruptedRun | KeyboardInterrupt | EndpointAwayError):
            self._state, code, reason = "interrupted", getattr(error, "exit_code", 130), str(error) or None
        else:
            code, reason = getattr(error, "exit_code", 1), f"{type(error).__name__}: {error}"
            self._state, reason = "failed", str(error) if isinstance(error, EvaluatorError) else reason
        self._ending = {
            "ended": moment(time.time()),
            "exit_code": code,
            "reason": None if reason is None else redact_text(reason),
        }


def answer_document(answer: Answer) -> dict[str, Any]:
    """`answer` as plain data."""
    return {"id": answer.id, "command": answer.command, "accepted": answer.accepted, "message": answer.message}
