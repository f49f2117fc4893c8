"""Runs a harness as a supervised child: bounded, stoppable, and gone when we are gone."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import psutil

from nemo_evaluator.core.echo import Echo
from nemo_evaluator.core.guard import KILL, STOP
from nemo_evaluator.core.live import LiveLine
from nemo_evaluator.core.memory import OomWatch, TreeMemory
from nemo_evaluator.core.output_log import OutputLog
from nemo_evaluator.core.stop_signal import HANDLED, StopSignal
from nemo_evaluator.errors import HarnessError

CHUNK_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024
"""No pipe holds more (/proc/sys/fs/pipe-max-size): what is read after the end of all writers is bounded by it."""
ECHO_SECONDS = 1.0
"""How long a paused terminal may hold up the end of a run that is to stop."""
OWN_SIGNAL_SECONDS = 0.3
"""A signal sent to the whole process group may reach the harness a moment before it reaches us."""
_GUARD = Path(__file__).with_name("guard.py")
_SHELL_SIGNAL_BASE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessExit:
    """How a harness ended.

    `returncode` is as a shell shows it: 128 + n where bash itself was ended by signal n, which is then also `signal`.
    `killed` counts the processes that had to be ended by SIGKILL. Memory is resident memory: of this process, and of
    this process and all of the harness's together.
    """

    returncode: int
    signal: int | None
    timed_out: bool
    interrupted_by: int | None
    tail: str
    """The last lines of the output, clean."""
    seconds: float
    peak_memory_bytes: int
    peak_tree_memory_bytes: int
    oom_killed: bool
    killed: int
    time_limit: float | None

    @property
    def failure(self) -> str | None:
        """What went wrong, as the end of a sentence that begins with the harness's name; None when nothing did."""
        if self.interrupted_by is not None:
            return f"was stopped by {_signal_name(self.interrupted_by)}"
        if self.timed_out:
            return f"was ended after {self.time_limit:g} s, the limit that config.params.time_limit sets"
        if self.returncode == 0:
            return None
        if self.oom_killed:
            peak = self.peak_tree_memory_bytes / 2**30
            return (
                f"ran out of memory: the kernel ended it (exit code {self.returncode}, peak of all processes "
                f"{peak:.1f} GiB); give it more memory or lower config.params.parallelism"
            )
        ended_by = self.signal or _signal_in(self.returncode)
        if ended_by is not None:
            return f"was ended by {_signal_name(ended_by)}, which this program did not send"
        hint = {126: " (a command that cannot be executed)", 127: " (a command that does not exist)"}
        return f"failed with exit code {self.returncode}{hint.get(self.returncode, '')}"


def supervise(
    script: str,
    *,
    cwd: Path,
    env: Mapping[str, str],
    logs: Path,
    time_limit: float | None = None,
    echo: BinaryIO | None = None,
    stop: StopSignal | None = None,
    log_name: str = "harness.log",
    hold_open: Sequence[int] = (),
    line: LiveLine | None = None,
) -> HarnessExit:
    """Run `script` with bash to its end; no process of it is left when this returns.

    Args:
        script: text for bash. It is written to a private file that exists only during the run.
        cwd: working folder of the script.
        env: its whole environment; PYTHONUNBUFFERED=1 is added.
        logs: folder for the log file; made when missing.
        time_limit: seconds after which everything is ended; None: no limit.
        echo: where the raw output goes as it comes; a stream that closes or blocks does not disturb the run.
        stop: ends the run early. None: SIGTERM, SIGINT and SIGHUP do, if this is the main thread.
        log_name: name of the log file in `logs`.
        hold_open: descriptors (locks) that stay open until the last process of the harness has ended, even if this
            process is killed before.
        line: what to keep below the output that is passed on, while the script runs.

    Raises:
        HarnessError: the script could not be started, or what watches it was killed.
    """
    bash = shutil.which("bash", path=env.get("PATH"))
    if bash is None:
        raise HarnessError("bash is not on PATH; harness commands are run by it")
    if not cwd.is_dir():
        raise HarnessError(f"the working folder {cwd} does not exist")
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if stop is None:
            stop = stack.enter_context(StopSignal().handling())
        script_file = stack.enter_context(_private_file(script))
        log = stack.enter_context(OutputLog(logs / log_name))
        run = stack.enter_context(_Supervision(log=log, echo=Echo(echo, line=line), stop=stop, time_limit=time_limit))
        run.start([bash, str(script_file)], cwd=cwd, env={"PYTHONUNBUFFERED": "1", **env}, hold_open=hold_open)
        return run.finish()


@contextlib.contextmanager
def _private_file(text: str) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix="nemo-evaluator-", suffix=".sh")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


class _Supervision:
    """One run of a guard: its pipes, and the loop that reads them."""

    def __init__(self, *, log: OutputLog, echo: Echo, stop: StopSignal, time_limit: float | None) -> None:
        self._log = log
        self._echo = echo
        self._stop = stop
        self._time_limit = time_limit
        self._oom = OomWatch()
        self._status = b""
        self._status_open = True
        self._output_open = True
        self._orders = 0
        self._descriptors: set[int] = set()
        self._resources = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Also the way out of unexpected errors: the guard ends everything when its control pipe closes.
        self._resources.close()

    def start(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], hold_open: Sequence[int]) -> None:
        """Start the guard, which starts `command`."""
        control_read, self._control = self._pipe()
        self._status_read, status_write = self._pipe()
        self._output, output_write = self._pipe()
        self._wake, wake_write = self._pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(self._output, False)
        # From here on a signal does not raise; it is passed on once the guard is there.
        self._resources.enter_context(self._stop.waking(wake_write))
        arguments = [control_read, status_write, os.getpid(), self._time_limit or 0, *command, *hold_open]
        self._started = time.monotonic()
        try:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                cwd=cwd,
                env=env,
                pass_fds=(control_read, status_write, *hold_open),
                start_new_session=True,
            )
        except OSError as error:
            raise HarnessError(
                f"cannot start the harness: {error.strerror}; look at the limits on processes and memory (ulimit -a)"
            ) from error
        self._resources.callback(self._wait_for_guard)
        for descriptor in (control_read, status_write, output_write):
            self._close(descriptor)
        self._memory = TreeMemory(self._guard.pid)

    def _pipe(self) -> tuple[int, int]:
        read, write = os.pipe()
        for descriptor in (read, write):
            self._descriptors.add(descriptor)
            self._resources.callback(self._close, descriptor)
        return read, write

    def _close(self, descriptor: int) -> None:
        """Close a descriptor of ours, once: its number may belong to somebody else by now."""
        if descriptor in self._descriptors:
            self._descriptors.remove(descriptor)
            os.close(descriptor)

    def _wait_for_guard(self) -> None:
        self._close(self._control)
        self._guard.wait()

    def finish(self) -> HarnessExit:
        """Serve the pipes until the guard says that all is over."""
        with selectors.PollSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._status_read, selectors.EVENT_READ)
            while self._status_open:
                self._pass_on_stop()
                self._echo.refresh()
                self._turn(selector, self._memory.sample_when_due())
            selector.unregister(self._status_read)
            self._echo.end_line()
            self._drain(selector)
        seconds = time.monotonic() - self._started
        return self._result(seconds)

    def _turn(self, selector: selectors.PollSelector, timeout: float) -> None:
        """Wait for one of the pipes and do what it needs; the output is read only as fast as it is echoed."""
        echo = self._echo.descriptor if self._echo.pending else None
        reads_output = echo is None and self._output_open
        if echo is not None:
            selector.register(echo, selectors.EVENT_WRITE)
        if reads_output:
            selector.register(self._output, selectors.EVENT_READ)
        ready = {key.fd for key, _ in selector.select(timeout)}
        if echo is not None:
            selector.unregister(echo)
        if reads_output:
            selector.unregister(self._output)
        if self._wake in ready:
            os.read(self._wake, 4096)
        if echo in ready:
            self._echo.proceed()
        if reads_output and self._output in ready:
            self._read_output()
        if self._status_read in ready:
            self._read_status()

    def _read_output(self) -> int:
        try:
            chunk = os.read(self._output, CHUNK_BYTES)
        except BlockingIOError:
            return 0
        self._output_open = bool(chunk)
        self._log.write(chunk)
        self._echo.write(chunk)
        return len(chunk)

    def _read_status(self) -> None:
        data = os.read(self._status_read, 4096)
        self._status += data
        self._status_open = bool(data) and b"\nended " not in self._status

    def _pass_on_stop(self) -> None:
        """Tell the guard to end the run (once), or to end it now (once more)."""
        wanted = 2 if self._stop.impatient else int(self._stop.signal_number is not None)
        if wanted > self._orders:
            self._orders = wanted
            with contextlib.suppress(OSError):
                os.write(self._control, KILL if wanted > 1 else STOP)

    def _drain(self, selector: selectors.PollSelector) -> None:
        """Read what is left in the pipe; somebody who got away may still hold its other end."""
        left = PIPE_BYTES
        patience = time.monotonic() + ECHO_SECONDS
        while True:
            while self._echo.pending:
                if self._stop.signal_number is not None and time.monotonic() > patience:
                    self._echo.give_up()
                self._turn(selector, ECHO_SECONDS / 10)
            count = self._read_output() if left > 0 and self._output_open else 0
            if count == 0:
                return
            left -= count

    def _result(self, seconds: float) -> HarnessExit:
        bash, fields = self._parse_status()
        if fields is None:
            self._end_what_is_left(bash)
            raise HarnessError(
                f"the process that watches the harness ended unexpectedly (status {self._guard.wait()}); its last "
                f"output was:\n{self._log.excerpt}"
            )
        wait_status, cause, killed, max_rss = int(fields[0]), fields[1], int(fields[2]), int(fields[3])
        ended_by = os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else None
        returncode = os.waitstatus_to_exitcode(wait_status) if ended_by is None else _SHELL_SIGNAL_BASE + ended_by
        interrupted_by = self._interruption(cause, returncode)
        foreign_kill = cause == "exit" and signal.SIGKILL in (ended_by, _signal_in(returncode))
        return HarnessExit(
            returncode=returncode,
            signal=ended_by,
            timed_out=cause == "limit",
            interrupted_by=interrupted_by,
            tail=self._log.excerpt,
            seconds=seconds,
            peak_memory_bytes=self._memory.peak_bytes,
            peak_tree_memory_bytes=max(self._memory.peak_tree_bytes, max_rss),
            oom_killed=self._oom.saw_kill(ended_by_sigkill=foreign_kill),
            killed=killed,
            time_limit=self._time_limit,
        )

    def _interruption(self, cause: str, returncode: int) -> int | None:
        """The signal that ended the run, if one that was meant for us did."""
        if cause == "limit":
            return None
        if cause == "exit" and _signal_in(returncode) in HANDLED:
            end = time.monotonic() + OWN_SIGNAL_SECONDS
            while self._stop.signal_number is None and time.monotonic() < end:
                time.sleep(0.01)
        if self._stop.signal_number is not None and (cause != "exit" or returncode != 0):
            return self._stop.signal_number
        return None if cause == "exit" else signal.SIGTERM

    def _parse_status(self) -> tuple[int | None, list[str] | None]:
        bash, fields = None, None
        for line in self._status.decode().splitlines():
            word, *rest = line.split()
            if word == "started":
                bash = int(rest[0])
            elif word == "ended":
                fields = rest
        return bash, fields

    def _end_what_is_left(self, bash: int | None) -> None:
        """Without a guard: end the process group and the processes that were last seen."""
        if bash is not None:
            with contextlib.suppress(OSError):
                os.killpg(bash, signal.SIGKILL)
        for process in self._memory.processes:
            # psutil compares the start times, so that no other process of the same id is hit.
            with contextlib.suppress(psutil.Error):
                process.kill()


def _signal_in(returncode: int) -> int | None:
    """The signal that ended the last command of a script, by the shell's convention."""
    number = returncode - _SHELL_SIGNAL_BASE
    return number if number in signal.valid_signals() else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
