"""Opening a store's file for reading, while another process writes, or where nothing may be written."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from nemo_evaluator.adapters.store.database import DamagedError, check_form, connect
from nemo_evaluator.errors import DataError


@dataclass(slots=True, kw_only=True)
class ReadOnly:
    """A store's file, open for reading; to be closed.

    Attributes:
        connection: to be used by one thread at a time.
        identifier: which store it is, whatever its path.
        path: the file.
    """

    connection: sqlite3.Connection
    identifier: str
    path: Path
    _stack: contextlib.ExitStack = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
        _remove_empty_log(self.path)


def open_for_reading(path: Path) -> ReadOnly:
    """Open the store at `path`; what is committed later is seen as well, unless nothing may be written beside it.

    Raises:
        DataError: there is none, or it cannot be read.
        MisconfigurationError: it is something else, or of a later version.
    """
    if not is_there(path):
        raise DataError(f"{path}: there is no store of requests here")
    with contextlib.ExitStack() as stack:
        try:
            connection = _connected(path, stack)
            is_store = check_form(connection, path)
            found = (
                connection.execute("SELECT value FROM about WHERE name = 'identifier'").fetchone() if is_store else None
            )
        except (sqlite3.Error, OSError, DamagedError) as error:
            raise DataError(f"{path}: the store cannot be read: {error}") from error
        identifier = str(found[0]) if found else str(path)
        return ReadOnly(connection=connection, identifier=identifier, path=path, _stack=stack.pop_all())


def is_there(path: Path) -> bool:
    """Whether `path` is a file that this user can see."""
    try:
        return path.is_file()
    except OSError:
        return False


def _connected(path: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    """A connection that has read something."""
    try:
        return _tried(f"{path.absolute().as_uri()}?mode=ro", stack)
    except sqlite3.OperationalError:
        # The log's index cannot be made here (sqlite.org/wal.html, section 5).
        log = path.with_name(f"{path.name}-wal")
        if not log.is_file() or log.stat().st_size == 0:
            return _tried(f"{path.absolute().as_uri()}?mode=ro&immutable=1", stack)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nemo-evaluator-")))
        for file in (path, log):
            shutil.copyfile(file, folder / file.name)
        return _tried(f"{(folder / path.name).as_uri()}?mode=rw", stack)


def _tried(uri: str, stack: contextlib.ExitStack) -> sqlite3.Connection:
    connection = connect(uri)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    stack.callback(connection.close)
    return connection


def _remove_empty_log(path: Path) -> None:
    """Take away the empty log and its index, which a connection that may only read makes and leaves behind."""
    log = path.with_name(f"{path.name}-wal")
    try:
        if log.stat().st_size:
            return
        with contextlib.closing(connect(f"{path.absolute().as_uri()}?mode=rw")) as connection:
            # SQLite does it when the last one closes the file that could write; it knows whether there are others.
            connection.execute("PRAGMA busy_timeout = 0")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except (OSError, sqlite3.Error):
        # There is none, or nothing may be written here.
        return
