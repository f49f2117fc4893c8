"""What is done about a store's file that is damaged: it is set aside, and all that can be read goes on in a new one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from nemo_evaluator.adapters.store.database import ENTRY_COLUMNS, LARGEST_ID, PAGE_BYTES, make_store
from nemo_evaluator.adapters.store.packing import checksum
from nemo_evaluator.adapters.store.pages import PageFile, Row

_SIZE_AT = 16
_LARGEST_PAGE = 65536
_SMALLEST_PAGE = 512
_CONTENT_WIDTH = 3
_PLACE_WIDTH = 2
_KEY = ENTRY_COLUMNS.index("key")
_LOOSE = ENTRY_COLUMNS.index("loose")
_STATUS = ENTRY_COLUMNS.index("status")
_ADDRESS = ENTRY_COLUMNS.index("address")
_START = ENTRY_COLUMNS.index("start")
_ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """What was done.

    Attributes:
        entries: how many entries were saved.
        aside: where the damaged file lies now.
    """

    entries: int
    aside: Path


def rescue(path: Path) -> Rescue:
    """Set the store at `path` aside and put all of its entries whose checksums are right into a new one.

    Nobody may have it open. The damaged file keeps its name and gets an end: `requests.db.corrupt-1`.

    Raises:
        OSError: a file cannot be read or written.
        sqlite3.Error: the new file cannot be written.
    """
    aside = _free_name(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    _remove(fresh)
    try:
        count = _save(path, fresh)
        # The damaged file has its second name before the new one takes its first: a crash between leaves both.
        os.link(path, aside)
        log = _log_of(path)
        if log.is_file():
            log.replace(_log_of(aside))
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        fresh.replace(path)
    finally:
        _remove(fresh)
    return Rescue(entries=count, aside=aside)


def _free_name(path: Path) -> Path:
    number = 1
    while (name := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    return name


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _remove(path: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _save(path: Path, fresh: Path) -> int:
    target = make_store(fresh)
    with contextlib.closing(target):
        target.execute("BEGIN")
        target.execute("CREATE TEMP TABLE seen (fingerprint BLOB PRIMARY KEY) WITHOUT ROWID")
        target.execute(f"CREATE TEMP TABLE found_entry ({', '.join(ENTRY_COLUMNS)})")
        target.execute("CREATE TEMP TABLE found_content (id, packed, checksum)")
        with contextlib.ExitStack() as stack:
            database = stack.enter_context(path.open("rb"))
            log = stack.enter_context(_log_of(path).open("rb")) if _log_of(path).is_file() else None
            for row in PageFile(database, log, size=_page_size(path)).rows():
                _take(target, row)
        count = _keep_sound(target)
        target.execute("COMMIT")
    return count


def _page_size(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(_SIZE_AT)
        size = int.from_bytes(file.read(2), "big")
    size = _LARGEST_PAGE if size == 1 else size
    is_possible = _SMALLEST_PAGE <= size <= _LARGEST_PAGE and size.bit_count() == 1
    return size if is_possible else PAGE_BYTES


def _take(target: sqlite3.Connection, row: Row) -> None:
    row_id, values = row
    if not 0 < row_id < LARGEST_ID:
        return
    # Rows of one page come again with each later form of it in the log.
    fingerprint = blake2b(repr(row).encode(), digest_size=16).digest()
    if not target.execute("INSERT OR IGNORE INTO seen VALUES (?)", (fingerprint,)).rowcount:
        return
    if len(values) == len(ENTRY_COLUMNS):
        marks = ", ".join("?" * len(values))
        target.execute(f"INSERT INTO found_entry VALUES ({marks})", (row_id, *values[1:]))  # noqa: S608  marks
    elif len(values) == _CONTENT_WIDTH and isinstance(values[1], bytes) and isinstance(values[2], bytes):
        target.execute("INSERT INTO found_content VALUES (?, ?, ?)", (row_id, *values[1:]))
    elif len(values) == _PLACE_WIDTH and isinstance(values[1], str):
        target.execute("INSERT OR IGNORE INTO place VALUES (?, ?)", (row_id, values[1]))
    elif len(values) == _PLACE_WIDTH and isinstance(values[1], int | float):
        target.execute("INSERT OR IGNORE INTO start VALUES (?, ?)", (row_id, values[1]))


def _keep_sound(target: sqlite3.Connection) -> int:
    """Copy the entries that fit their contents into the tables of the store; their number."""
    count = 0
    names = ", ".join(f"e.{name}" for name in ENTRY_COLUMNS)
    for entry, packed, digest in _pairs(target, names):
        key, loose, status = entry[_KEY], entry[_LOOSE], entry[_STATUS]
        if not (isinstance(status, int) and isinstance(key, bytes | None) and isinstance(loose, bytes | None)):
            continue
        if checksum(key, loose, status, packed) != digest:
            continue
        marks = ", ".join("?" * len(entry))
        done = target.execute(f"INSERT OR IGNORE INTO entry VALUES ({marks})", entry)  # noqa: S608  marks
        if done.rowcount:
            count += 1
            target.execute("INSERT INTO content VALUES (?, ?, ?)", (entry[0], packed, digest))
            # What the damage took of the smaller tables is not known any more.
            if isinstance(entry[_ADDRESS], int):
                target.execute("INSERT OR IGNORE INTO place VALUES (?, 'unknown:' || ?)", (entry[_ADDRESS],) * 2)
            if isinstance(entry[_START], int):
                target.execute("INSERT OR IGNORE INTO start VALUES (?, 0)", (entry[_START],))
    return count


def _pairs(target: sqlite3.Connection, names: str) -> Iterator[tuple[tuple[object, ...], bytes, bytes]]:
    cursor = target.execute(
        f"SELECT {names}, c.packed, c.checksum FROM found_entry e JOIN found_content c ON c.id = e.id ORDER BY e.id"  # noqa: S608  names of columns
    )
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        for *entry, packed, digest in rows:
            yield tuple(entry), packed, digest
