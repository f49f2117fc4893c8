"""`status.json`: how a run stands, for whoever can read its folder, from whatever process, user or machine."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nemo_evaluator.core.status_form import ENDED, flaw_of
from nemo_evaluator.errors import UsageError
from nemo_evaluator.files import open_regular

STATUS_FILE = "status.json"
FORMAT = 1
"""Version of the document; a reader refuses a later one."""

DIED = "died"
UNRESPONSIVE = "unresponsive"
SILENT_SECONDS = 10.0
"""A run that has written nothing for so long is no longer there."""
FOREIGN_SILENT_SECONDS = 60.0
"""The same for a run on another machine, whose clock differs, and whose files come late over a network."""

_MOST_BYTES = 4 * 1024 * 1024
_START_TIME = 19
"""Position of starttime in /proc/PID/stat (proc(5)), counted from the state, which follows the name."""
_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What a folder says about its run.

    Attributes:
        folder: the run's output directory.
        state: as written, or `died` when it ended without a word, or `unresponsive` when its process is there and
            writes nothing.
        silent_seconds: since the last word of a run that has not ended; None when it has.
        document: what `status.json` holds.
    """

    folder: Path
    state: str
    silent_seconds: float | None
    document: Mapping[str, Any]

    @property
    def is_alive(self) -> bool:
        """Whether the run goes on."""
        return self.state not in (*ENDED, DIED, UNRESPONSIVE)

    def as_dict(self) -> dict[str, Any]:
        """The document with the state as it is seen from here."""
        silent = None if self.silent_seconds is None else round(self.silent_seconds, 1)
        return {"folder": str(self.folder), **self.document, "state": self.state, "silent_seconds": silent}


def whereabouts() -> dict[str, Any]:
    """Which process writes a status, and by what others can tell whether it is still there."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        # Process ids mean the same only within one namespace, and the monotonic clock only until the next boot.
        "process": {"kernel": _kernel(), "namespace": _namespace(), "start_ticks": _start_ticks(os.getpid())},
    }


def moment(seconds: float) -> str:
    """Seconds since the epoch as text."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def write_status(folder: Path, document: Mapping[str, Any]) -> None:
    """Put `document` in place of the folder's status; a reader sees the old one or the new one.

    It is not synced: after a loss of power it may be old or empty, and the next second brings another one.

    Raises:
        OSError: the disk is full or fails.
    """
    path = folder / STATUS_FILE
    # The run holds its folder, so that nobody else uses this name.
    temporary = folder / f".{STATUS_FILE}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(open_regular(temporary, flags), "wb") as file:
        file.write(json.dumps(document, indent=1).encode() + b"\n")
    temporary.replace(path)


def read_status(folder: Path) -> RunStatus:
    """How the run in `folder` stands.

    Raises:
        UsageError: there is no folder, no run in it, or its status cannot be read.
    """
    document = _load(folder)
    if not isinstance(document, dict) or type(document.get("format")) is not int:
        raise UsageError(f"{folder / STATUS_FILE} is not the status of a run: it has no format")
    if document["format"] > FORMAT:
        raise UsageError(
            f"{folder / STATUS_FILE} was written by a later version of nemo-evaluator; use that one to read it"
        )
    flaw = flaw_of(document)
    if flaw is not None:
        raise UsageError(f"{folder / STATUS_FILE} is not the status of a run: {flaw}")
    state, silent = _state_from_here(document)
    return RunStatus(folder=folder, state=state, silent_seconds=silent, document=document)


def _load(folder: Path) -> Any:
    path = folder / STATUS_FILE
    for _ in range(_TRIES):
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                return json.loads(file.read(_MOST_BYTES))
        except FileNotFoundError:
            raise UsageError(_absence(folder)) from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError):
            # After a loss of power it may be empty, until the run that goes on writes the next one.
            time.sleep(0.1)
    raise UsageError(f"{path} is damaged")


def _absence(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}; give the --output_dir of a run"
    with contextlib.suppress(OSError):
        if (folder / "results.yml").exists():
            return f"{folder} holds results, but no {STATUS_FILE}: its run did not write any"
    return f"{folder} holds no run (no {STATUS_FILE}); give the --output_dir of a run"


def _state_from_here(document: Mapping[str, Any]) -> tuple[str, float | None]:
    state = str(document["state"])
    if state in ENDED:
        return state, None
    writer = document["process"]
    same_kernel = writer.get("kernel") is not None and writer["kernel"] == _kernel()
    silent = _silence(document, same_kernel=same_kernel)
    if same_kernel and writer.get("namespace") is not None and writer["namespace"] == _namespace():
        if _start_ticks(document["pid"]) != writer.get("start_ticks"):
            return DIED, silent
        return (UNRESPONSIVE if silent > SILENT_SECONDS else state), silent
    return (DIED if silent > (SILENT_SECONDS if same_kernel else FOREIGN_SILENT_SECONDS) else state), silent


def _silence(document: Mapping[str, Any], *, same_kernel: bool) -> float:
    """Seconds since the document was written."""
    if same_kernel:
        # A clock that is set does not touch this one.
        return max(0.0, time.monotonic() - float(document["clock"]))
    return max(0.0, time.time() - datetime.fromisoformat(document["updated"]).timestamp())


def _kernel() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _start_ticks(pid: int) -> int | None:
    """When a process started, in ticks since boot; None when there is none of that id, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[_START_TIME])
