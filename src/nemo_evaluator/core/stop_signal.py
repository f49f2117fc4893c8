"""The wish to end a run early: from a signal, or from another thread."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from nemo_evaluator.errors import InterruptedRun

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignal:
    """Set once and seen by everything that waits; like a `threading.Event` with a reason.

    In a thread of your own: create one, pass it on, call `request` to stop the run. In the main thread use
    `handling()`, which makes SIGTERM, SIGINT and SIGHUP request the stop.
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._reason: str | None = None
        self._wake: list[int] = []

    def request(self, signal_number: int = signal.SIGTERM, *, reason: str | None = None) -> None:
        """Ask for the stop. Safe in signal handlers and threads.

        Args:
            signal_number: becomes part of the exit code.
            reason: who asked and why, as a sentence without its full stop, where it was no signal; the first request's
                counts.
        """
        if not self._numbers:
            self._reason = reason
        self._numbers.append(signal_number)
        for descriptor in tuple(self._wake):
            # Full means that the reader has been woken already; closed means that it has gone.
            with contextlib.suppress(OSError):
                os.write(descriptor, b"!")

    def end_from_within(self, reason: str) -> None:
        """Ask for the stop because the run itself cannot or must not go on; whoever asks keeps the true cause."""
        self.request(signal.SIGTERM, reason=reason)

    @property
    def signal_number(self) -> int | None:
        """The first request's signal; None as long as nobody asked."""
        return self._numbers[0] if self._numbers else None

    @property
    def reason(self) -> str | None:
        """What the first request gave as its reason; None for signals."""
        return self._reason

    @property
    def impatient(self) -> bool:
        """Whether Ctrl-C came twice: no more grace."""
        return self._numbers.count(signal.SIGINT) > 1

    def raise_if_requested(self) -> None:
        """Raise InterruptedRun when the stop was asked for."""
        if self.signal_number is not None:
            raise InterruptedRun(self.signal_number, reason=self.reason)

    @contextlib.contextmanager
    def waking(self, descriptor: int) -> Iterator[None]:
        """While this lasts a request writes a byte to `descriptor` instead of raising out of the signal handler."""
        self._wake.append(descriptor)
        try:
            yield
        finally:
            self._wake.remove(descriptor)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While this lasts a signal does not interrupt: what has begun to be written is written to its end."""
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            with self.waking(sink):
                yield
        finally:
            os.close(sink)

    @contextlib.contextmanager
    def handling(self) -> Iterator[StopSignal]:
        """Handle SIGTERM, SIGINT and SIGHUP until the end of the block; the former handlers come back then.

        Where nothing waits for the request (`waking`) the signal raises InterruptedRun at once. Signals that are
        ignored (nohup, background jobs) stay ignored. Outside of the main thread nothing is installed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        former = {number: signal.getsignal(number) for number in HANDLED}
        installed = [number for number in HANDLED if former[number] not in (signal.SIG_IGN, None)]
        for number in installed:
            signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number in installed:
                signal.signal(number, former[number])

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first = self.signal_number is None
        self.request(number)
        # Once a first signal has begun to unwind the run, only an impatient user may disturb the cleaning up.
        if not self._wake and (first or number == signal.SIGINT):
            raise InterruptedRun(number)
