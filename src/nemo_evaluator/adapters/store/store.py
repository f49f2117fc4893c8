"""The store of a run: every request and answer, in one file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from nemo_evaluator.adapters.store.database import DamagedError, Opened
from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.opening import open_sound, open_store
from nemo_evaluator.adapters.store.packing import Content, Packer
from nemo_evaluator.adapters.store.reading import is_there, open_for_reading
from nemo_evaluator.adapters.store.shelf import Shelf, Wanted
from nemo_evaluator.adapters.store.waiting import Waiting
from nemo_evaluator.adapters.store.writer import Writer, prepare
from nemo_evaluator.errors import DataError, MisconfigurationError

_log = logging.getLogger(__name__)

_PACKED_IN_THREAD = 1024 * 1024
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_LONGEST_WAIT = 3.0
_FIRST_RETRY = 0.02
_LONGEST_RETRY = 0.25
_LAST_WAIT = 2000
_MOST_WAITING_BYTES = 64 * 1024 * 1024
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Store:
    """One file that answers are added to, and taken from in later starts.

    `put` returns when its entry is committed: a process that is killed afterwards, at whatever moment, has it still.
    All entries that come in one turn of the event loop are committed together. The commit is made in the event loop
    itself: a thread for it costs more, in changes of threads, than it saves. Only syncing is left to a thread.

    Where another process holds the file, answers wait for their commit, a few seconds at most. When the disk is full,
    or the file cannot be written for another reason, answers go on without being kept; that is said once, and tried
    again after a pause. Entries of earlier starts are given meanwhile. A file is opened again, and repaired, in a
    thread.

    Several processes may use one file; each finds the entries that were committed before it opened it.

    Args:
        path: the file; made with its folder when it does not exist. A damaged one is set aside, see `opening`.
        opens_at_once: False to open it in a thread, when the first entry comes.

    Raises:
        MisconfigurationError: the file is something else, or of a later version.
    """

    def __init__(self, path: Path, *, opens_at_once: bool = True) -> None:
        self.path = path
        self.start: int | None = None
        """Which start of the run this is, counted from 1; None until that could be written."""
        self._packer = Packer()
        self._writer: Writer | None = None
        self._must_reopen = False
        self._is_fresh = False
        self._damage: str | None = None
        self._shelves: dict[Wanted, Shelf] = {}
        self._waiting = Waiting()
        self._give_up_at: float | None = None
        self._retry_seconds = _FIRST_RETRY
        self._pause = 0.0
        self._paused_until = 0.0
        self._lost = 0
        self._reading = contextlib.ExitStack()
        self._opening: Future[Opened] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-opening")
        self._is_readable = asyncio.Event()
        self._is_readable.set()
        if not opens_at_once:
            return
        try:
            self._begin(self._adopt(open_store(path)))
        except (OSError, sqlite3.Error) as error:
            self._failed(error)

    @property
    def is_repaired_now(self) -> bool:
        """Whether its file is damaged, and being repaired: then nothing can be read."""
        return not self._is_readable.is_set()

    async def readable(self) -> None:
        """Wait until it can be read again, a few seconds at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_readable.wait(), _LONGEST_WAIT)

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
        self._end_opening()
        if self._waiting:
            self._write_last()
        self._paused_until = math.inf
        self._thread.shutdown(wait=False)
        self._reading.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lost:
            _log.warning("%d answers were not stored in %s; a new start asks for them again", self._lost, self.path)
            self._lost = 0

    def _end_opening(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            self._adopt(opening.result(_LONGEST_WAIT))
        except TimeoutError:
            opening.add_done_callback(_close_late)
        except Exception as error:  # noqa: BLE001  whatever it is, the run must end
            self._failed(error)

    def _write_last(self) -> None:
        """There is no later: wait for other processes here."""
        try:
            if self._writer is None or self._must_reopen:
                raise OSError("it was not opened again in time")  # noqa: TRY301  as any other
            self._writer.connection.execute(f"PRAGMA busy_timeout = {_LAST_WAIT}")
            self._writer.write(self._waiting.entries, start=self._begin(self._writer))
        except (OSError, sqlite3.Error, ValueError, OverflowError) as error:
            self._failed(error)
        else:
            self._waiting.settle(is_stored=True)

    def _queue(self, entry: NewEntry, packed: bytes) -> asyncio.Future[bool]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        if self._waiting.size > _MOST_WAITING_BYTES:
            self._lost += 1
            future.set_result(False)
            return future
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.add(prepare(entry, packed), future)
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
        if not self._waiting or self._opening is not None:
            return
        if self._writer is None or self._must_reopen:
            self._open_again()
            return
        try:
            self._writer.write(self._waiting.entries, start=self._begin(self._writer))
        except (OSError, sqlite3.Error, ValueError, OverflowError) as error:
            self._not_written(error)
            return
        self._is_fresh = False
        self._give_up_at = None
        self._retry_seconds = _FIRST_RETRY
        self._waiting.settle(is_stored=True)
        if self._pause:
            self._succeeded()

    def _not_written(self, error: Exception) -> None:
        code = _code(error)
        if code == sqlite3.SQLITE_BUSY:
            now = time.monotonic()
            self._give_up_at = self._give_up_at or now + _LONGEST_WAIT
            if now < self._give_up_at:
                asyncio.get_running_loop().call_later(self._retry_seconds, self._flush)
                self._retry_seconds = min(2 * self._retry_seconds, _LONGEST_RETRY)
                return
        elif code in _DAMAGED and not self._is_fresh:
            # It is set aside now, and these entries go into the new file.
            self._damage = str(error)
            self._open_again()
            return
        self._failed(error)

    def _begin(self, writer: Writer) -> int:
        """The number of this start."""
        if self.start is None:
            self.start = writer.begin_start()
        return self.start

    def _open_again(self) -> None:
        """Open the file in a thread; a damaged one is repaired there, and nobody may have it open meanwhile."""
        loop = asyncio.get_running_loop()
        former, damage = None, self._damage
        if damage is not None:
            former, self._writer = self._writer, None
            self._read_from(None)
            self._is_readable.clear()

        def told(_: Future[Opened]) -> None:
            # The loop may be closed by then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._opened_again)

        self._opening = self._thread.submit(_reopened, self.path, damage, former)
        self._opening.add_done_callback(told)
        loop.call_later(_LONGEST_WAIT, self._overdue, self._opening)

    def _opened_again(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            return
        if self._paused_until == math.inf:
            self._paused_until = 0.0
        try:
            self._adopt(opening.result())
        except Exception as error:  # noqa: BLE001  whatever it is, answers must not wait for it
            if isinstance(error, DamagedError) and self._damage is None:
                self._damage = str(error)
                self._open_again()
                return
            self._failed(error)
            if self._writer is None:
                # What cannot be written can be read, perhaps.
                with contextlib.suppress(sqlite3.Error, DataError, MisconfigurationError):
                    self._read_from(self._reading.enter_context(open_for_reading(self.path)).connection)
        self._is_readable.set()
        self._flush()

    def _overdue(self, opening: Future[Opened]) -> None:
        """Opening takes too long for answers to wait."""
        if self._opening is opening:
            self._failed(TimeoutError("opening it again takes long"))
            self._paused_until = math.inf
            self._is_readable.set()

    def _adopt(self, opened: Opened) -> Writer:
        former, self._writer = self._writer, Writer(self.path, opened)
        self._read_from(opened.connection)
        if former is not None:
            former.abandon()
        self._must_reopen, self._is_fresh, self._damage = False, True, None
        return self._writer

    def _read_from(self, connection: sqlite3.Connection | None) -> None:
        """Have earlier entries read there; None: nowhere."""
        for shelf in self._shelves.values():
            shelf.connection = connection
        if connection is None or self._writer is not None:
            self._reading.close()

    def _failed(self, error: Exception) -> None:
        """Go on without storing, for a while."""
        self._lost += self._waiting.settle(is_stored=False)
        self._give_up_at = None
        self._retry_seconds = _FIRST_RETRY
        if not self._pause:
            _log.warning(
                "answers cannot be stored in %s: %s. The run goes on, and storing is tried again; "
                "a new start asks again for what is not stored",
                self.path,
                error,
            )
        code = _code(error)
        # The connection still reads; what is wrong with it may be gone in a new one.
        self._must_reopen = self._must_reopen or code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL)
        if code in _DAMAGED:
            self._damage = str(error)
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


def _reopened(path: Path, damage: str | None, former: Writer | None) -> Opened:
    if damage is None:
        # Others still read the file, so nothing may be put in its place.
        return open_sound(path)
    if former is not None:
        former.close()
    return open_store(path, damage=damage)


def _close_late(opening: Future[Opened]) -> None:
    """Nobody waits for it any more."""
    if opening.exception() is None:
        opening.result().connection.close()
