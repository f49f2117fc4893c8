"""Telling a run that is under way what to do, by `control.json`, and its answer, from `status.json`."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nemo_evaluator.core.command_file import CONTROL_FILE, POLL_SECONDS, Answer, Command, Verb
from nemo_evaluator.core.status import UNRESPONSIVE, RunStatus, moment, read_status
from nemo_evaluator.core.status_form import ENDED
from nemo_evaluator.errors import EvaluatorError, UsageError
from nemo_evaluator.files import write_atomically

WAIT_SECONDS = 15.0


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
        EvaluatorError: the run refused, ended meanwhile, does not respond, or did not answer in time.
    """
    _refuse_deaf(read_status(folder))
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


def _refuse_deaf(status: RunStatus) -> None:
    if status.state == UNRESPONSIVE:
        raise EvaluatorError(
            f"the run in {status.folder} does not respond: {_silence(status)}. It was told nothing; try again, or end "
            "the process"
        )
    if not status.is_alive:
        raise UsageError(f"no run is under way in {status.folder}: the last one is {status.state}")


def _silence(status: RunStatus) -> str:
    seconds = status.silent_seconds or 0.0
    return f"its process {status.document['pid']} is there, but has written nothing for {seconds:.0f} s"


def _wait(folder: Path, identity: str, seconds: float) -> Answer:
    give_up = time.monotonic() + seconds
    while True:
        status = read_status(folder)
        answer = _answer_in(status.document, identity)
        if answer is not None:
            return answer
        is_unresponsive = status.state == UNRESPONSIVE
        if not status.is_alive and not is_unresponsive:
            end = "ended" if status.state in ENDED else "died"
            raise EvaluatorError(f"the run in {folder} {end} before it answered")
        if time.monotonic() > give_up:
            how = f"does not respond: {_silence(status)}" if is_unresponsive else f"is {status.state}"
            raise EvaluatorError(
                f"the run in {folder} did not answer within {seconds:g} s; it {how}. It may still act on the command: "
                f"look with `nemo-evaluator status {folder}`"
            )
        time.sleep(POLL_SECONDS / 2)


def _answer_in(document: Mapping[str, Any], identity: str) -> Answer | None:
    for answer in document["answers"]:
        if answer["id"] == identity:
            return Answer(**{field.name: answer[field.name] for field in fields(Answer)})
    return None
