"""The store of a run: every request and answer, in one file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sqlite3
import time
from pathlib import Path

from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.opening import open_store
from nemo_evaluator.adapters.store.packing import Content, Packer
from nemo_evaluator.adapters.store.reading import is_there, open_for_reading
from nemo_evaluator.adapters.store.shelf import Shelf, Wanted
from nemo_evaluator.adapters.store.writer import PackedEntry, Writer, prepare
from nemo_evaluator.errors import DataError, MisconfigurationError

_log = logging.getLogger(__name__)

_PACKED_IN_THREAD = 1024 * 1024
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Store:
    """One file that answers are added to, and taken from in later starts.

    `put` returns when its entry is committed: a process that is killed afterwards, at whatever moment, has it still.
    All entries that come in one turn of the event loop are committed together. The commit is made in the event loop
    itself: a thread for it costs more, in changes of threads, than it saves. Only syncing is left to a thread.

    When the disk is full, or the file cannot be written for another reason, answers go on without being kept; that is
    said once, and tried again after a pause.

    Several processes may use one file; each finds the entries that were committed before it opened it.

    Args:
        path: the file; made with its folder when it does not exist. A damaged one is set aside, see `opening`.

    Raises:
        MisconfigurationError: the file is something else, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start: int | None = None
        """Which start of the run this is, counted from 1; None until that could be written."""
        self._packer = Packer()
        self._writer: Writer | None = None
        self._damage: str | None = None
        self._shelves: dict[Wanted, Shelf] = {}
        self._pending: list[tuple[PackedEntry, asyncio.Future[bool]]] = []
        self._pause = 0.0
        self._paused_until = 0.0
        self._lost = 0
        self._reading = contextlib.ExitStack()
        try:
            self._ready()
        except (OSError, sqlite3.Error) as error:
            self._failed(error, 0)

    def shelf(self, wanted: Wanted | None = None) -> Shelf | None:
        """The entries of earlier starts; None when they cannot be read.

        To be asked for before the first `put`: entries of this start are not given again.
        """
        wanted = wanted or Wanted()
        if wanted not in self._shelves:
            try:
                if self._writer is not None:
                    connection = self._writer.connection
                elif is_there(self.path):
                    connection = self._reading.enter_context(open_for_reading(self.path)).connection
                else:
                    return None
                self._shelves[wanted] = Shelf(connection, wanted)
            except (sqlite3.Error, DataError) as error:
                _log.warning("answers of earlier starts cannot be read, and are asked for again: %s", error)
                return None
        return self._shelves[wanted]

    def copied_from(self, identifier: str) -> frozenset[int]:
        """The ids of those entries of another store that were copied into this one."""
        if self._writer is None:
            return frozenset()
        found = self._writer.connection.execute(
            "SELECT substr(origin, ?) FROM entry WHERE origin LIKE ? || ':%'", (len(identifier) + 2, identifier)
        )
        return frozenset(int(id_) for (id_,) in found if str(id_).isdigit())

    async def put(self, entry: NewEntry) -> bool:
        """Store `entry`; whether that was possible, once it is safe from a crash of this process."""
        if len(entry.request or b"") + len(entry.response or b"") > _PACKED_IN_THREAD and not self._is_paused():
            try:
                packed = await asyncio.to_thread(Packer().pack, _content(entry))
            except ValueError as error:
                return self._refused(error)
            return await self._queue(entry, packed)
        return await self.add(entry)

    def add(self, entry: NewEntry) -> asyncio.Future[bool]:
        """As `put`, for callers that do not wait; the entry is packed at once."""
        if not self._is_paused():
            try:
                return self._queue(entry, self._packer.pack(_content(entry)))
            except ValueError as error:
                self._refused(error)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(False)
        return future

    def close(self) -> None:
        """Write what is left, and close the file; what comes later is not stored."""
        self._flush()
        self._paused_until = math.inf
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._reading.close()
        if self._lost:
            _log.warning("%d answers were not stored in %s; a new start asks for them again", self._lost, self.path)
            self._lost = 0

    def _queue(self, entry: NewEntry, packed: bytes) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        if not self._pending:
            loop.call_soon(self._flush)
        self._pending.append((prepare(entry, packed), future))
        return future

    def _is_paused(self) -> bool:
        """Whether it is too early to try again; counts an entry that is not stored for that."""
        if not self._paused_until or time.monotonic() >= self._paused_until:
            return False
        self._lost += 1
        return True

    def _refused(self, error: ValueError) -> bool:
        _log.warning("an answer was not stored: %s", error)
        return False

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        try:
            self._write([entry for entry, _ in pending])
        except (OSError, sqlite3.Error, ValueError, OverflowError, MisconfigurationError) as error:
            self._failed(error, len(pending))
            is_stored = False
        else:
            is_stored = True
            if self._pause:
                self._succeeded()
        for _, future in pending:
            # Who waited may have left.
            if not future.done():
                future.set_result(is_stored)

    def _write(self, entries: list[PackedEntry]) -> None:
        writer, start = self._ready()
        try:
            writer.write(entries, start=start)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGED:
                raise
            # It is set aside now, and these entries go into the new file.
            self._drop(damage=str(error))
            writer, start = self._ready()
            writer.write(entries, start=start)

    def _ready(self) -> tuple[Writer, int]:
        """The writer, and the number of this start."""
        if self._writer is None:
            opened = open_store(self.path, damage=self._damage)
            self._damage = None
            self._writer = Writer(self.path, opened)
            for shelf in self._shelves.values():
                shelf.connection = opened.connection
        if self.start is None:
            self.start = self._writer.begin_start()
        return self._writer, self.start

    def _drop(self, damage: str | None = None) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._damage = damage

    def _failed(self, error: Exception, count: int) -> None:
        """Go on without storing, for a while."""
        self._lost += count
        if not self._pause:
            _log.warning(
                "answers cannot be stored in %s: %s. The run goes on, and storing is tried again; "
                "a new start asks again for what is not stored",
                self.path,
                error,
            )
        code = _code(error)
        if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
            self._drop(damage=str(error) if code in _DAMAGED else self._damage)
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        self._paused_until = time.monotonic() + self._pause

    def _succeeded(self) -> None:
        _log.warning("answers are stored again in %s; %d were not", self.path, self._lost)
        self._pause = self._paused_until = 0.0


def _content(entry: NewEntry) -> Content:
    return Content(
        headers=entry.headers,
        facts=entry.facts,
        request=entry.request or b"",
        response=entry.response or b"",
        told=entry.told,
    )


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 when there is none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
