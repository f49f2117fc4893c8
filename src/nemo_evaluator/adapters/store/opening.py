"""Opening a store for a run, whatever state its file is in."""

from __future__ import annotations

import logging
import struct
import time
from pathlib import Path

from nemo_evaluator.adapters.store.database import DamagedError, Opened, is_sound, network_kind, open_for_writing
from nemo_evaluator.adapters.store.rescue import rescue

_log = logging.getLogger(__name__)

_MOMENT = 0.1
_LOG_HEADER = struct.Struct(">8I")
_MAGIC = (0x377F0682, 0x377F0683)
_CHECKED_BYTES = 512 * 1024 * 1024
"""Files up to this size are read and checked when they are opened; damage in larger ones is found where it is met."""


def open_store(path: Path, *, damage: str | None = None) -> Opened:
    """Open the store at `path` for writing; a damaged one is set aside, and what can be read goes on in a new one.

    Args:
        path: the file.
        damage: what is known to be wrong with it.

    Raises:
        MisconfigurationError: the file is something else, or of a later version.
        OSError: it cannot be read or made.
        sqlite3.Error: it cannot be used now.
    """
    try:
        if damage is not None:
            raise DamagedError(damage)  # noqa: TRY301  as if it had been found now
        opened = open_sound(path)
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


def open_sound(path: Path) -> Opened:
    """Open the store at `path` for writing, as long as nothing is wrong with it.

    Raises:
        DamagedError: it is damaged.
        MisconfigurationError: the file is something else, or of a later version.
        OSError: it cannot be read or made.
        sqlite3.Error: it cannot be used now.
    """
    if not _has_sound_log(path) and not _after_a_moment(path):
        # SQLite would take it for an empty one, and delete it.
        raise DamagedError("the beginning of its write-ahead log is damaged")
    opened = open_for_writing(path)
    try:
        if path.stat().st_size <= _CHECKED_BYTES and not is_sound(opened.connection):
            raise DamagedError("SQLite finds errors in it")  # noqa: TRY301  the connection is closed below
    except BaseException:
        opened.connection.close()
        raise
    return opened


def _after_a_moment(path: Path) -> bool:
    """Whether it is only that another process was just beginning the log anew."""
    time.sleep(_MOMENT)
    return _has_sound_log(path)


def _has_sound_log(path: Path) -> bool:
    """Whether the log's header is whole (sqlite.org/fileformat2.html, section 4.1), or there is no log."""
    try:
        with path.with_name(f"{path.name}-wal").open("rb") as file:
            header = file.read(_LOG_HEADER.size)
    except FileNotFoundError:
        return True
    if len(header) < _LOG_HEADER.size:
        return True
    magic, *words, first, second = _LOG_HEADER.unpack(header)
    if magic not in _MAGIC:
        return False
    order = ">" if magic == _MAGIC[1] else "<"
    one = other = 0
    numbers = struct.unpack(f"{order}6I", header[: 4 * (1 + len(words))])
    for even, odd in zip(numbers[::2], numbers[1::2], strict=True):
        one = (one + even + other) % 2**32
        other = (other + odd + one) % 2**32
    return (one, other) == (first, second)
