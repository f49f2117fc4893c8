"""`progress_tracking`: tells a URL, and a file, how many samples have been processed."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.interceptors.progress_updates import Progress, ProgressUpdates
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.errors import MisconfigurationError

PROGRESS_FILE = "progress"
"""Holds the number of processed samples, in `output_dir`."""

LAST_UPDATE_SECONDS = 2.5
"""How long the end of a run waits for the last update."""

_log = logging.getLogger(__name__)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class ProgressTrackingParameters(Parameters):
    """Where updates go, and how often: after so many samples, and after so many seconds when anything changed.

    Environment variables in the URL (`$NAME`, `${NAME}`) are expanded. `output_dir` is the folder of the file.
    """

    progress_tracking_url: str | None = None
    progress_tracking_interval: Annotated[int, Field(ge=1)] = 1
    progress_tracking_interval_seconds: Annotated[float, Field(gt=0)] | None = None
    request_method: Annotated[Literal["PATCH", "POST", "PUT"], BeforeValidator(_upper)] = "PATCH"
    output_dir: str | None = None


class ProgressTracking:
    """Counts samples with a usable answer, replayed ones included, and sends `{"samples_processed": N}`.

    Samples are those that the harness names; where it names none, usable answers are counted. Where the harness says
    how many it has, `samples_total` and `percent` are sent too. Updates are sent from a thread of their own, one at a
    time, the newest only, and once more at the end; one that fails is worth a warning and disturbs nothing.

    A run that goes on from an earlier one continues at the file's number: answers that are replayed were counted there.

    Raises:
        MisconfigurationError: the URL cannot be used, or names a variable that is not set.
    """

    def __init__(self, parameters: ProgressTrackingParameters, context: Context) -> None:
        url = parameters.progress_tracking_url
        target = None if not url else _target(url, context.environ)
        if target is None:
            _log.warning("progress_tracking: progress_tracking_url is not set; no updates are sent")
        folder = parameters.output_dir
        file = Path(folder) / PROGRESS_FILE if folder else None
        self._updates = ProgressUpdates(target, method=parameters.request_method, file=file)
        self._interval = parameters.progress_tracking_interval
        self._seconds = parameters.progress_tracking_interval_seconds
        self._earlier = _read(file)
        self._replayed = 0
        self._fresh = 0
        self._samples: set[int] = set()
        self._total: int | None = None
        self._sent = 0
        self._sent_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Count the answer when it is over."""
        response = await call_next(request)
        if request.is_counted and response.exchange is not None:
            response.exchange.when_over(lambda exchange: self._over(request, exchange))
        return response

    async def close(self) -> None:
        """Send the last update."""
        if self._timer is not None:
            self._timer.cancel()
        if self._counted() > self._sent:
            self._send()
        await asyncio.to_thread(self._updates.close, LAST_UPDATE_SECONDS)

    def _over(self, request: Request, exchange: Exchange) -> None:
        if not exchange.is_usable:
            return
        if request.planned is not None:
            self._total = request.planned
        if request.sample is not None:
            sample = hash(request.sample)
            if sample in self._samples:
                return
            self._samples.add(sample)
        if exchange.source == "store":
            self._replayed += 1
        else:
            self._fresh += 1
        if self._counted() - self._sent >= self._interval:
            self._send()
        elif self._seconds is not None and self._timer is None:
            wait = max(0.0, self._sent_at + self._seconds - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._send)

    def _counted(self) -> int:
        count = max(self._earlier, self._replayed) + self._fresh
        return count if self._total is None else min(count, self._total)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sent = self._counted()
        self._sent_at = time.monotonic()
        self._updates.send(Progress(self._sent, self._total))


def _target(url: str, environ: Mapping[str, str]) -> Upstream:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not environ.get(name):
            raise MisconfigurationError(
                f"progress_tracking: progress_tracking_url names the environment variable {name}, which is unset or "
                "empty"
            )
        return environ[name]

    expanded = _VARIABLE.sub(value, url)
    try:
        return Upstream(expanded)
    except MisconfigurationError:
        raise MisconfigurationError(
            "progress_tracking: progress_tracking_url, with its variables expanded, must be like http://HOST:PORT/PATH"
        ) from None


def _read(file: Path | None) -> int:
    """The number of an earlier run; 0 when there is none."""
    try:
        return max(0, int(file.read_text())) if file is not None else 0
    except (OSError, ValueError):
        return 0
