"""The store's file: its form, and how it is opened."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from nemo_evaluator.errors import MisconfigurationError

APPLICATION = 0x6E657671
"""SQLite's `application_id` of a store: `nevq`."""

VERSION = 1
"""SQLite's `user_version`: changes with the columns and with the dictionary of `packing`."""

PAGE_BYTES = 16384
"""Rows of some kilobytes fill pages of this size well; larger ones cost more in the write-ahead log."""

_NEWER = range(VERSION + 1, VERSION + 100)
_BUSY_SECONDS = 2.0
LARGEST_ID = 2**48

ENTRY_COLUMNS = (
    "id", "start", "time", "upstream", "address", "request_id", "attempt", "sample", "status", "is_usable", "problem",
    "seconds", "first_byte_seconds", "prompt_tokens", "completion_tokens", "reasoning_tokens", "cached_tokens", "cost",
    "finish_reason", "request_bytes", "response_bytes", "key", "loose", "seed", "kept", "origin",
)  # fmt: skip
"""Columns of `entry`. `address` is a number of `place`. `loose` is null when it equals `key`. `kept` has bit 1 when the
request is kept and bit 2 when the answer is."""

KEPT_REQUEST = 1
KEPT_RESPONSE = 2

# No index: entries are looked up by keys only in later starts, which sort the keys of all in memory when they open the
# file. So nothing but the ends of tables is written while a run goes on.
_SCHEMA = f"""
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE start (id INTEGER PRIMARY KEY, time REAL NOT NULL);
CREATE TABLE place (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE);
CREATE TABLE entry ({", ".join("id INTEGER PRIMARY KEY" if name == "id" else name for name in ENTRY_COLUMNS)});
CREATE TABLE content (id INTEGER PRIMARY KEY, packed BLOB NOT NULL, checksum BLOB NOT NULL);
"""

_TABLES = frozenset({"entry", "content"})

# Where several machines may write, or memory cannot be shared between processes (sqlite.org/wal.html, section 1).
_NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.gcsfuse", "fuse.juicefs",
        "fuse.s3fs", "fuse.sshfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "pvfs2", "smb3", "smbfs",
        "virtiofs",
    }
)  # fmt: skip


class DamagedError(Exception):
    """The file is no database, or SQLite finds it damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A store's file, open for writing.

    Attributes:
        connection: to be used by one thread at a time.
        has_log: whether a write-ahead log is used, so that others may read while one writes.
        identifier: which store it is, whatever its path.
    """

    connection: sqlite3.Connection
    has_log: bool
    identifier: str


def open_for_writing(path: Path, *, has_log: bool | None = None) -> Opened:
    """Open the store at `path`, which is made when it does not exist; only its owner may read it.

    Args:
        path: the file.
        has_log: whether to use a write-ahead log; None where that is safe.

    Raises:
        DamagedError: it cannot be used any more.
        MisconfigurationError: it is something else, or of a later version.
        OSError: it cannot be made.
        sqlite3.OperationalError: it cannot be opened now.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        # SQLite gives its other files the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = connect(f"{path.absolute().as_uri()}?mode=rw")
    try:
        return _prepare(connection, path, has_log=network_kind(path) is None if has_log is None else has_log)
    except sqlite3.DatabaseError as error:
        connection.close()
        if _is_damage(error, path):
            raise DamagedError(str(error)) from error
        raise
    except BaseException:
        connection.close()
        raise


def _is_damage(error: sqlite3.DatabaseError, path: Path) -> bool:
    """Whether an error when a file is opened is the fault of what is in it."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    # SQLite only reads files whose header names a form of writing that it does not know.
    if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return error.sqlite_errorcode == sqlite3.SQLITE_ERROR


def make_store(path: Path) -> sqlite3.Connection:
    """A new store without a log, for whoever fills it in one go.

    Raises:
        OSError: `path` exists, or cannot be made.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = connect(f"{path.absolute().as_uri()}?mode=rw")
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    _make_tables(connection)
    return connection


def connect(uri: str) -> sqlite3.Connection:
    """A connection without transactions of its own, whatever thread uses it."""
    connection = sqlite3.connect(
        uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    # Text that is damaged is shown as well as it can be, instead of breaking the reader.
    connection.text_factory = _text
    return connection


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _prepare(connection: sqlite3.Connection, path: Path, *, has_log: bool) -> Opened:
    # Nothing is changed in a file that is not ours.
    check_form(connection, path)
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    mode = connection.execute(f"PRAGMA journal_mode = {'WAL' if has_log else 'TRUNCATE'}").fetchone()[0]
    has_log = mode == "wal"
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA trusted_schema = OFF")
    if not check_form(connection, path):
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been quicker.
        if not check_form(connection, path):
            _make_tables(connection)
        connection.execute("COMMIT")
    # Whether it can be written shows when it is.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO start VALUES (NULL, 0)")
    connection.execute("ROLLBACK")
    if not 0 <= last_id(connection) < LARGEST_ID:
        raise DamagedError("its numbers are out of range")
    found = connection.execute("SELECT value FROM about WHERE name = 'identifier'").fetchone()
    if found is None:
        raise DamagedError("it does not say which store it is")
    return Opened(connection=connection, has_log=has_log, identifier=str(found[0]))


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    for statement in filter(str.strip, _SCHEMA.split(";\n")):
        connection.execute(statement)
    connection.execute("INSERT INTO about VALUES ('identifier', ?)", (secrets.token_hex(8),))


def check_form(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether it is a store of this version; False when it is empty.

    Raises:
        DamagedError: it was a store.
        MisconfigurationError: it is another program's, or a later version's.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not tables and application == 0:
        return False
    if application == APPLICATION and version in _NEWER:
        raise MisconfigurationError(
            f"{path}: the store was written by a later version of nemo-evaluator; use that, or another cache_dir"
        )
    if application == APPLICATION and version == VERSION and tables >= _TABLES:
        return True
    if tables & _TABLES or application == APPLICATION:
        raise DamagedError("its header or its tables are damaged")
    raise MisconfigurationError(f"{path}: this is the database of another program; give another cache_dir")


def last_id(connection: sqlite3.Connection) -> int:
    """The greatest id; 0 when there is none."""
    found = connection.execute("SELECT max(id) FROM entry").fetchone()[0]
    return found or 0


def is_sound(connection: sqlite3.Connection) -> bool:
    """Whether SQLite finds no damage; reads the whole file."""
    try:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False


def network_kind(path: Path, mounts: str | None = None) -> str | None:
    """The kind of the network file system that `path` lies on; None when it lies on this machine's own.

    Args:
        path: any, which need not exist.
        mounts: the text of `/proc/self/mounts` (proc(5)).
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text(errors="replace")
        except OSError:
            return None
    place = Path(os.path.realpath(path))
    best, kind = "", None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) > 2:  # noqa: PLR2004  device, folder, kind
            folder = fields[1].replace("\\040", " ")
            if len(folder) >= len(best) and place.is_relative_to(folder):
                best, kind = folder, fields[2]
    return kind if kind in _NETWORK else None
