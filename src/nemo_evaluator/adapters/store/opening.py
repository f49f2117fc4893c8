"""Opening a store for a run, whatever state its file is in."""

from __future__ import annotations

import logging
from pathlib import Path

from nemo_evaluator.adapters.store.database import DamagedError, Opened, is_sound, network_kind, open_for_writing
from nemo_evaluator.adapters.store.rescue import rescue

_log = logging.getLogger(__name__)

_CHECKED_BYTES = 512 * 1024 * 1024
"""Files up to this size are read and checked when they are opened; damage in larger ones is found where it is met."""


def open_store(path: Path) -> Opened:
    """Open the store at `path` for writing; a damaged one is set aside, and what can be read goes on in a new one.

    Raises:
        MisconfigurationError: the file is something else, or of a later version.
        OSError: it cannot be read or made.
        sqlite3.Error: it cannot be used now.
    """
    try:
        opened = _open_sound(path)
    except DamagedError as error:
        done = rescue(path)
        _log.warning(
            "the store %s was damaged (%s): %d answers were saved from it; what was there before is in %s",
            path,
            error,
            done.entries,
            done.aside,
        )
        opened = open_for_writing(path)
    if not opened.has_log:
        kind = network_kind(path)
        _log.warning(
            "the store %s lies on a file system %swhere a write-ahead log is not safe; "
            "storing is slower there, and others should not read it while the run goes on",
            path,
            f"({kind}) " if kind else "",
        )
    return opened


def _open_sound(path: Path) -> Opened:
    opened = open_for_writing(path)
    try:
        if path.stat().st_size <= _CHECKED_BYTES and not is_sound(opened.connection):
            raise DamagedError("SQLite finds errors in it")  # noqa: TRY301  the connection is closed below
    except BaseException:
        opened.connection.close()
        raise
    return opened
