"""The folder that a run writes to."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nemo_evaluator.errors import EvaluatorError, MisconfigurationError

MIN_FREE_BYTES = 200 * 1024 * 1024
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def create(output_dir: Path) -> None:
    """Make the folder, readable for its owner only, and the missing ones above it.

    Raises:
        MisconfigurationError: it cannot be made; the message says why.
    """
    try:
        for parent in reversed(output_dir.absolute().parents):
            with contextlib.suppress(FileExistsError):
                parent.mkdir(mode=0o755)
        output_dir.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise MisconfigurationError(
            f"the output directory {output_dir} cannot be made: {error.strerror}; "
            "config.output_dir (--output_dir) must be a folder that this user may write to"
        ) from error


@contextlib.contextmanager
def naming_full_disk(output_dir: Path) -> Iterator[None]:
    """Say what to do when there is no room for a file of the run.

    Raises:
        EvaluatorError: in place of the OSError that says so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise EvaluatorError(
            f"the disk of {output_dir} is full ({error.strerror}), so the run cannot be finished. What was stored "
            "before is kept: make room and start the same command again to go on"
        ) from error


def problem(output_dir: Path) -> str | None:
    """Why a run in this existing folder would fail: not writable, or no room; None when it would not."""
    try:
        descriptor, name = tempfile.mkstemp(dir=output_dir, prefix=".writable.")
        os.close(descriptor)
        Path(name).unlink()
    except OSError as error:
        return (
            f"the output directory {output_dir} is not writable for user {os.geteuid()}: {error.strerror}; "
            "choose another (--output_dir), or change its owner or the user"
        )
    free = shutil.disk_usage(output_dir).free
    if free < MIN_FREE_BYTES:
        return (
            f"only {free / 2**20:.0f} MiB are free on the disk of {output_dir}; a run needs at least "
            f"{MIN_FREE_BYTES / 2**20:.0f} MiB for its answers and logs"
        )
    return None
