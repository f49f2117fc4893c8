"""Moving what was written from the write-ahead log into the database, beside the thread that writes."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path

from nemo_evaluator.adapters.store.database import connect

_log = logging.getLogger(__name__)

_JOIN_SECONDS = 10.0


class Checkpoints:
    """A thread with a connection of its own, which moves the log's pages whenever it is asked to.

    It takes no lock that a writer waits for (`PASSIVE`, sqlite.org/pragma.html#pragma_wal_checkpoint). It waits without
    waking up, and syncs files where the thread that serves requests must not wait.
    """

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=rw"
        self._wanted = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="store-checkpoints", daemon=True)
        self._thread.start()

    def want(self) -> None:
        """Move pages soon."""
        self._wanted.set()

    def end(self) -> None:
        """Have the thread end soon."""
        self._is_over = True
        self._wanted.set()

    def close(self) -> None:
        """End the thread."""
        self.end()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        try:
            with contextlib.closing(connect(self._uri)) as connection:
                while True:
                    self._wanted.wait()
                    self._wanted.clear()
                    if self._is_over:
                        return
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # The writer moves the pages itself when the log gets long.
            _log.debug("the store's log is no longer moved in the background: %s", error)
