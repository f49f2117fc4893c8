"""`control.json`: what somebody wants of a run that is under way, and the run's answer in `status.json`."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nemo_evaluator.core.status import ENDED, RunStatus, moment, read_status
from nemo_evaluator.errors import EvaluatorError, UsageError
from nemo_evaluator.files import write_atomically

CONTROL_FILE = "control.json"
POLL_SECONDS = 0.25
WAIT_SECONDS = 15.0
ANSWERS_KEPT = 8
_MOST_BYTES = 64 * 1024

Verb = Literal["pause", "resume", "concurrency", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What somebody wants.

    Attributes:
        id: unique; the run's answer repeats it.
        command: what to do.
        value: for `concurrency`: the largest number of requests at once; None to limit no longer.
        upstream: for `concurrency`: which endpoint; None for all.
        by: who asks.
        time: when.
    """

    id: str
    command: Verb
    value: int | None = None
    upstream: str | None = None
    by: str = ""
    time: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a run made of a command."""

    id: str
    command: str
    accepted: bool
    message: str


class CommandFile:
    """The run's side: looks for commands without costing anything while there are none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CONTROL_FILE
        self._seen: tuple[int, int] | None = None

    def clear(self) -> None:
        """Forget what was wanted of an earlier run."""
        self._path.unlink(missing_ok=True)

    def poll(self) -> Command | None:
        """A command that was not there before.

        Raises:
            UsageError: there is one that cannot be understood.
        """
        try:
            found = self._path.stat(follow_symlinks=False)
        except OSError:
            return None
        stamp = (found.st_ino, found.st_ctime_ns)
        if stamp == self._seen:
            return None
        self._seen = stamp
        return self._read()

    def _read(self) -> Command:
        try:
            with os.fdopen(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
                fields = json.loads(file.read(_MOST_BYTES))
            command = Command(**fields)
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{self._path} is no command: {error}") from error
        value = command.value
        if command.command not in get_args(Verb) or not (value is None or (type(value) is int and value >= 1)):
            raise UsageError(f"{self._path} is no command of this version")
        return command


def send(
    folder: Path,
    command: Verb,
    *,
    value: int | None = None,
    upstream: str | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> Answer:
    """Tell the run in `folder` what to do, and wait for its answer.

    Args:
        folder: the run's output directory.
        command: what to do.
        value: see `Command`.
        upstream: see `Command`.
        wait_seconds: how long to wait for the run's answer.

    Raises:
        UsageError: no run is under way there, or the folder cannot be written to.
        EvaluatorError: the run refused, ended meanwhile, or did not answer in time.
    """
    _refuse_ended(read_status(folder))
    wanted = Command(
        id=secrets.token_hex(8), command=command, value=value, upstream=upstream, by=_who(), time=moment(time.time())
    )
    try:
        write_atomically(folder / CONTROL_FILE, json.dumps(asdict(wanted)) + "\n")
        # The run may be another user's, as in a container, whatever this one's umask.
        (folder / CONTROL_FILE).chmod(0o644)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written to: {error.strerror}; a run is controlled by whoever may write to its folder"
        ) from error
    answer = _wait(folder, wanted.id, wait_seconds)
    if not answer.accepted:
        raise EvaluatorError(f"the run in {folder} refused: {answer.message}")
    return answer


def _who() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A uid that has no name, as in many containers.
        name = f"uid {os.getuid()}"
    return f"{name} on {socket.gethostname()}"


def _refuse_ended(status: RunStatus) -> None:
    if not status.is_alive:
        raise UsageError(f"no run is under way in {status.folder}: the last one is {status.state}")


def _wait(folder: Path, identity: str, seconds: float) -> Answer:
    give_up = time.monotonic() + seconds
    while True:
        status = read_status(folder)
        answer = _answer_in(status.document, identity)
        if answer is not None:
            return answer
        if not status.is_alive:
            raise EvaluatorError(f"the run in {folder} {_end_of(status)} before it answered")
        if time.monotonic() > give_up:
            raise EvaluatorError(
                f"the run in {folder} did not answer within {seconds:g} s; it is {status.state}. It may still act on "
                f"the command: look with `nemo-evaluator status {folder}`"
            )
        time.sleep(POLL_SECONDS / 2)


def _end_of(status: RunStatus) -> str:
    return "ended" if status.state in ENDED else "died"


def _answer_in(document: Any, identity: str) -> Answer | None:
    for answer in document.get("answers") or ():
        if answer["id"] == identity:
            return Answer(**answer)
    return None


Act = Callable[[Command], str]
"""Does what a command says and returns what was done, in a few words; raises EvaluatorError to refuse."""
