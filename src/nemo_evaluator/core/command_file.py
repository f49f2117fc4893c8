"""`control.json` as the run that is under way sees it: what somebody wants, and what it answers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nemo_evaluator.errors import UsageError
from nemo_evaluator.files import open_regular

CONTROL_FILE = "control.json"
POLL_SECONDS = 0.25
ANSWERS_KEPT = 8
MOST_AT_ONCE = 1_000_000
"""The largest limit on requests at once; more than any machine has ports for."""
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
            with os.fdopen(open_regular(self._path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                fields = json.loads(file.read(_MOST_BYTES))
            command = Command(**fields)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise UsageError(f"{self._path} is no command: {error}") from error
        if not _is_of_this_version(fields):
            raise UsageError(f"{self._path} is no command of this version")
        return command


def _is_of_this_version(fields: Mapping[str, Any]) -> bool:
    value, upstream = fields.get("value"), fields.get("upstream")
    return (
        fields["command"] in get_args(Verb)
        and (value is None or (type(value) is int and 1 <= value <= MOST_AT_ONCE))
        and (upstream is None or isinstance(upstream, str))
        and isinstance(fields["id"], str)
        and isinstance(fields.get("by", ""), str)
    )
