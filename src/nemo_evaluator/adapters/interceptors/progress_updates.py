"""Updates of a run's progress, sent from a thread of their own: one at a time, the newest only."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nemo_evaluator.adapters.redaction import redact_text
from nemo_evaluator.adapters.tls import tls_context
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.files import write_atomically

UPDATE_SECONDS = 2.0
"""Longest silence of the receiver that an update bears."""

PAUSE_SECONDS = 0.1
"""Least time between two updates, so that a fast run is not slowed down by telling how fast it is."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How many samples have been processed, of how many; None when that is not known."""

    processed: int
    total: int | None

    def document(self) -> dict[str, Any]:
        """What is sent; the first key is that of the compatible interface."""
        document: dict[str, Any] = {"samples_processed": self.processed}
        if self.total:
            document |= {"samples_total": self.total, "percent": round(100 * self.processed / self.total, 2)}
        return document


class ProgressUpdates:
    """Sends updates and writes them to a file. A failure is told once, in a warning.

    Args:
        target: where they are sent; None to send none.
        method: of the requests.
        file: what the number is written to; None to write none.
    """

    def __init__(self, target: Upstream | None, *, method: str, file: Path | None) -> None:
        self._target = target
        self._method = method
        self._file = file
        self._changed = threading.Condition()
        self._newest: Progress | None = None
        self._is_closing = False
        self._has_failed: set[str] = set()
        self._thread: threading.Thread | None = None
        self._tls: ssl.SSLContext | None = tls_context() if target is not None and target.is_tls else None

    def send(self, progress: Progress) -> None:
        """Send `progress` soon, unless a newer one comes before; returns at once."""
        if self._target is None and self._file is None:
            return
        with self._changed:
            self._newest = progress
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="progress-updates", daemon=True)
            self._thread.start()

    def close(self, seconds: float) -> None:
        """Wait until the newest update was sent, but no longer than `seconds`."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                self._warn("sent", f"the last update was not taken within {seconds:g} s")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._is_closing)
                progress, self._newest = self._newest, None
            if progress is None:
                return
            self._write(progress)
            if self._target is not None:
                self._tell(self._target, progress)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, PAUSE_SECONDS)

    def _write(self, progress: Progress) -> None:
        if self._file is not None:
            try:
                write_atomically(self._file, f"{progress.processed}\n")
            except OSError as error:
                self._warn("written", f"{self._file} cannot be written: {error.strerror}")

    def _tell(self, target: Upstream, progress: Progress) -> None:
        connection = self._connection(target)
        headers = {"Content-Type": "application/json"}
        if target.basic_authorization is not None:
            headers["Authorization"] = target.basic_authorization
        try:
            with contextlib.closing(connection):
                connection.request(
                    self._method, _path(target), body=json.dumps(progress.document()).encode(), headers=headers
                )
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            self._warn("sent", f"an update to {target.origin} failed: {redact_text(str(error) or repr(error))}")
            return
        if not 200 <= status < 300:  # noqa: PLR2004  the statuses of success
            self._warn("sent", f"{target.origin} answered an update with {status}")

    def _connection(self, target: Upstream) -> http.client.HTTPConnection:
        port = urlsplit(target.url).port
        if self._tls is not None:
            return http.client.HTTPSConnection(target.host, port, timeout=UPDATE_SECONDS, context=self._tls)
        return http.client.HTTPConnection(target.host, port, timeout=UPDATE_SECONDS)

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._has_failed:
            self._has_failed.add(kind)
            _log.warning("progress_tracking: %s; the run goes on, and further failures are not told", text)


def _path(target: Upstream) -> str:
    parts = urlsplit(target.url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
