"""Entries of a store that is not written to: that of another run, or of this one when it is replayed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from nemo_evaluator.adapters.store.reading import is_there, open_for_reading
from nemo_evaluator.adapters.store.record import STORE_FILE
from nemo_evaluator.adapters.store.shelf import Shelf, Wanted
from nemo_evaluator.errors import DataError, MisconfigurationError


class BorrowedShelf:
    """The entries of a store, opened read only.

    Args:
        path: the store's file.
        wanted: which of its entries.

    Raises:
        DataError: there is no store, or it cannot be read.
        MisconfigurationError: the file is something else, or of a later version.
    """

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.path = path
        self._opened = open_for_reading(path)
        self.identifier = self._opened.identifier
        self._wanted = wanted
        self._shelf: Shelf | None = None

    def shelf(self, taken: frozenset[int] = frozenset()) -> Shelf:
        """Its entries.

        Args:
            taken: ids of entries that are not to be given; the first call counts.

        Raises:
            DataError: it cannot be read.
        """
        if self._shelf is None:
            try:
                self._shelf = Shelf(self._opened.connection, self._wanted, taken=taken)
            except sqlite3.Error as error:
                raise DataError(f"{self.path}: the store cannot be read: {error}") from error
        return self._shelf

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


def find_store(place: str | Path) -> Path:
    """The store's file that `place` means: itself, the one in this folder, or that of the run in this folder.

    Raises:
        MisconfigurationError: there is none.
    """
    path = Path(place)
    for candidate in (path, path / STORE_FILE, path / "cache" / STORE_FILE):
        if is_there(candidate):
            return candidate
    raise MisconfigurationError(
        f"{path}: there is no store of requests here; give the output folder of a run, its cache folder, or the file "
        f"{STORE_FILE} itself"
    )
