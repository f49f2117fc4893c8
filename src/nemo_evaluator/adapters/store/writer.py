"""Adds rows to the store's file, many in one transaction."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_evaluator.adapters.store.checkpoints import Checkpoints
from nemo_evaluator.adapters.store.database import ENTRY_COLUMNS, KEPT_REQUEST, KEPT_RESPONSE, Opened, last_id
from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.packing import checksum

_log = logging.getLogger(__name__)

_CHECKPOINT_BYTES = 4 * 1024 * 1024
_LONGEST_LOG = 64 * 1024 * 1024
_COLUMNS_BYTES = 256
_SHORT_WAIT = 20
_WAIT = 50
"""Milliseconds that a commit waits for another process: it is made in the event loop."""
_INSERT_ENTRY = f"INSERT INTO entry VALUES ({', '.join('?' * len(ENTRY_COLUMNS))})"  # noqa: S608  marks
_INSERT_CONTENT = "INSERT INTO content VALUES (?, ?, ?)"


# Not frozen: that would cost half a microsecond each time.
@dataclass(slots=True)
class PackedEntry:
    """An entry, ready to be written: `columns` are those of `entry` behind `address`."""

    entry: NewEntry
    columns: tuple[Any, ...]
    packed: bytes
    digest: bytes


def prepare(entry: NewEntry, packed: bytes) -> PackedEntry:
    """The row of `entry`, whose content is `packed`."""
    identity, facts = entry.identity, entry.facts
    key = identity.key if identity else None
    loose = identity.loose if identity and identity.has_seed else None
    kept = (KEPT_REQUEST if entry.request is not None else 0) | (KEPT_RESPONSE if entry.response is not None else 0)
    columns = (
        _text(entry.request_id),
        entry.attempt,
        _text(entry.sample),
        entry.status,
        int(entry.is_usable),
        _text(entry.problem),
        entry.seconds,
        entry.first_byte_seconds,
        _count(facts.prompt_tokens),
        _count(facts.completion_tokens),
        _count(facts.reasoning_tokens),
        _count(facts.cached_tokens),
        entry.cost,
        _text(facts.finish_reasons[0]) if facts.finish_reasons else None,
        entry.request_bytes,
        entry.response_bytes,
        key,
        loose,
        identity.seed if identity else None,
        kept,
        entry.origin,
    )
    return PackedEntry(entry, columns, packed, checksum(key, loose, entry.status, packed))


def _text(text: str | None) -> str | None:
    # A lone surrogate, which an endpoint may send, has no form in UTF-8.
    return text if text is None or text.isascii() else text.encode(errors="replace").decode()


def _count(tokens: int | None) -> int | None:
    # What an endpoint says may be more than a column holds.
    return tokens if tokens is None or tokens < 2**63 else None


class Writer:
    """Writes to one opened file; used by one thread at a time."""

    def __init__(self, path: Path, opened: Opened) -> None:
        self.connection = opened.connection
        self.connection.execute(f"PRAGMA busy_timeout = {_WAIT}")
        self.identifier = opened.identifier
        self._log_file = path.with_name(f"{path.name}-wal")
        self._checkpoints = Checkpoints(path) if opened.has_log else None
        self._places: dict[str, int] = {}
        self._unmoved = 0
        self._restart_at = _LONGEST_LOG

    def begin_start(self) -> int:
        """Note that a start of the run begins; its number.

        Raises:
            sqlite3.Error: it cannot be written.
        """
        number = self.connection.execute("INSERT INTO start VALUES (NULL, ?)", (time.time(),)).lastrowid
        assert number is not None
        return number

    def write(self, entries: Sequence[PackedEntry], *, start: int) -> None:
        """Write `entries`, all or none.

        Raises:
            sqlite3.Error: they cannot be written.
        """
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            first = last_id(connection) + 1
            rows = [
                (first + index, start, one.entry.time, one.entry.upstream, self._place(one.entry.address), *one.columns)
                for index, one in enumerate(entries)
            ]
            connection.executemany(_INSERT_ENTRY, rows)
            connection.executemany(
                _INSERT_CONTENT, [(first + index, one.packed, one.digest) for index, one in enumerate(entries)]
            )
            connection.execute("COMMIT")
        except BaseException:
            # A place that was new is not there either.
            self._places.clear()
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        self._unmoved += sum([len(one.packed) for one in entries]) + _COLUMNS_BYTES * len(entries)
        if self._unmoved > _CHECKPOINT_BYTES:
            self._unmoved = 0
            self._move()

    def close(self) -> None:
        """Move all into the database, and close it."""
        if self._checkpoints is not None:
            self._checkpoints.close()
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()

    def abandon(self) -> None:
        """Close it as it is, without waiting; another connection goes on."""
        if self._checkpoints is not None:
            self._checkpoints.end()
        self.connection.close()

    def _place(self, address: str) -> int:
        if address not in self._places:
            self.connection.execute("INSERT OR IGNORE INTO place VALUES (NULL, ?)", (address,))
            found = self.connection.execute("SELECT id FROM place WHERE address = ?", (address,)).fetchone()
            self._places[address] = found[0]
        return self._places[address]

    def _move(self) -> None:
        """Have the log's pages moved into the database, beside; here only when the log has become long."""
        if self._checkpoints is None:
            return
        self._checkpoints.want()
        try:
            size = self._log_file.stat().st_size
        except OSError:
            return
        if size < self._restart_at:
            self._restart_at = max(_LONGEST_LOG, size)
            return
        try:
            # A long read of another process may stand in the way.
            self.connection.execute(f"PRAGMA busy_timeout = {_SHORT_WAIT}")
            busy = self.connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0]
        except sqlite3.Error as error:
            _log.debug("the store's log could not be moved: %s", error)
            busy = 1
        finally:
            self.connection.execute(f"PRAGMA busy_timeout = {_WAIT}")
        # The log's file keeps its size when it begins anew.
        self._restart_at = size + _LONGEST_LOG if busy else _LONGEST_LOG
