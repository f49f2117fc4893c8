"""The entries of earlier starts, and giving them again."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from nemo_evaluator.adapters.store.claims import Claims
from nemo_evaluator.adapters.store.database import KEPT_RESPONSE
from nemo_evaluator.adapters.store.identity import KEY_BYTES, Identity
from nemo_evaluator.adapters.store.packing import Content, Packer, checksum

_log = logging.getLogger(__name__)

Seeds = Literal["auto", "exact", "ignore"]
"""Whether the value of `seed` is part of what a request is; `auto`: see `Shelf`."""

_SMALL_SEED = 2**16
_ROWS_AT_ONCE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An entry that is given again; attributes as those of `record.Record`."""

    id: int
    status: int
    attempt: int
    seconds: float
    first_byte_seconds: float
    cost: float | None
    request_bytes: int
    response_bytes: int
    content: Content


class Shelf:
    """The usable entries that a store had when it was opened; each is given once in a start.

    A request finds the oldest unused entry with its very key. Some harnesses draw new seeds at each start, so that no
    request is ever the same again. With `seeds="auto"` such a harness is recognised: the stored seeds look drawn (most
    are distinct and at least 65,536), and no request with a seed has found its own entry in this start. Then a request
    that does not find its own entry gets an unused one that differs in the seed only. `exact` never does that,
    `ignore` always does.

    Args:
        connection: of the store.
        seeds: see above.
        taken: ids of entries that are not to be given.
    """

    def __init__(
        self, connection: sqlite3.Connection, *, seeds: Seeds = "auto", taken: frozenset[int] = frozenset()
    ) -> None:
        self.damaged = 0
        """Entries that were found damaged, and not given."""
        self.connection = connection
        """Where entries are read; the same entries have the same ids wherever that is."""
        self._packer = Packer()
        self._claims = Claims(_rows(connection), used=taken)
        self._takes_any_seed = seeds == "ignore" or (seeds == "auto" and _look_drawn(connection))
        self._is_sure = seeds != "auto"

    def __len__(self) -> int:
        return len(self._claims)

    def find(self, identity: Identity) -> Found | None:
        """Claim and read an entry for a request; None when there is none.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        if not self._claims:
            return None
        found = self._first(self._claims.exact(identity), identity, is_exact=True)
        if identity.has_seed:
            if found is not None and not self._is_sure:
                # This harness asks with the same seeds as before.
                self._takes_any_seed, self._is_sure = False, True
            if found is None and self._takes_any_seed:
                found = self._first(self._claims.loose(identity), identity, is_exact=False)
        return found

    def _first(self, ids: Iterator[int], identity: Identity, *, is_exact: bool) -> Found | None:
        for id_ in ids:
            found = self._read(id_, identity, is_exact=is_exact)
            if found is not None:
                return found
        return None

    def _read(self, id_: int, identity: Identity, *, is_exact: bool) -> Found | None:
        try:
            row = self.connection.execute(_READ, (id_,)).fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            row = None
        if row is None:
            self._damage(id_)
            return None
        found = self._sound(id_, row)
        if found is None:
            self._damage(id_)
        elif (row[0] != identity.key) if is_exact else ((row[1] or row[0]) != identity.loose):
            return None
        return found

    def _sound(self, id_: int, row: tuple[Any, ...]) -> Found | None:
        key, loose, status, attempt, seconds, first, cost, sent, received, packed, digest = row
        # Damaged columns may hold anything.
        try:
            if checksum(key, loose, status, packed) != digest:
                return None
            return Found(
                id=id_,
                status=status,
                attempt=int(attempt),
                seconds=float(seconds),
                first_byte_seconds=float(first),
                cost=None if cost is None else float(cost),
                request_bytes=int(sent),
                response_bytes=int(received),
                content=self._packer.unpack(packed),
            )
        except (TypeError, ValueError):
            return None

    def _damage(self, id_: int) -> None:
        self.damaged += 1
        if self.damaged == 1:
            _log.warning("entry %d of the store is damaged and not used; the endpoint is asked again", id_)


_READ = """
SELECT e.key, e.loose, e.status, e.attempt, e.seconds, e.first_byte_seconds, e.cost, e.request_bytes, e.response_bytes,
       c.packed, c.checksum
FROM entry e JOIN content c ON c.id = e.id WHERE e.id = ?
"""

_USABLE = f"is_usable = 1 AND kept & {KEPT_RESPONSE} AND typeof(key) = 'blob' AND length(key) = {KEY_BYTES}"


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[bytes, bytes, int]]:
    cursor = connection.execute(
        f"SELECT ifnull(loose, key) AS any_seed, key, id FROM entry WHERE {_USABLE} "  # noqa: S608  constants
        f"AND (loose IS NULL OR (typeof(loose) = 'blob' AND length(loose) = {KEY_BYTES})) ORDER BY any_seed, key, id"
    )
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def _look_drawn(connection: sqlite3.Connection) -> bool:
    """Whether the seeds of the entries look like random numbers rather than like a count or a constant."""
    count, distinct, large = connection.execute(
        "SELECT count(*), count(DISTINCT seed), coalesce(sum(seed NOT BETWEEN ? AND ?), 0) FROM entry "  # noqa: S608  constants
        f"WHERE {_USABLE} AND typeof(seed) = 'integer'",
        (-_SMALL_SEED + 1, _SMALL_SEED - 1),
    ).fetchone()
    return bool(2 * distinct > count and 2 * large > count)
