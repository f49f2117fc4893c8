"""The entries of earlier starts, and giving them again."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from nemo_evaluator.adapters.messages import MODEL
from nemo_evaluator.adapters.store.claims import Claims
from nemo_evaluator.adapters.store.database import KEPT_RESPONSE
from nemo_evaluator.adapters.store.identity import KEY_BYTES, Identity, origin_of
from nemo_evaluator.adapters.store.packing import Content, Packer, checksum

_log = logging.getLogger(__name__)

Seeds = Literal["auto", "exact", "ignore"]
"""Whether the value of `seed` is part of what a request is; `auto`: see `Shelf`."""

_SMALL_SEED = 2**16
_MISSES_OF_DRAWN_SEEDS = 3
_ROWS_AT_ONCE = 5000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries of a store may be given again, and how.

    Attributes:
        upstream: to requests for this endpoint, by its name.
        origin: kept from this origin; None for any, where all of them are of one run, whose endpoint may have moved.
        seeds: see `Shelf`.
        is_replay: whether nobody can be asked: then failures are given again too, as they ended.
    """

    upstream: str = MODEL
    origin: str | None = None
    seeds: Seeds = "auto"
    is_replay: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An entry that is given again; attributes as those of `record.Record`."""

    id: int
    status: int
    is_usable: bool
    attempt: int
    seconds: float
    first_byte_seconds: float
    cost: float | None
    request_bytes: int
    response_bytes: int
    content: Content


class Shelf:
    """The entries for one endpoint that a store had when it was opened; each is given once in a start.

    A request finds the oldest unused entry with its very key. Some harnesses draw new seeds at each start, so that no
    request is ever the same again. With `seeds="auto"` such a harness is recognised: the stored seeds look drawn (most
    are distinct and at least 65,536), no request with a seed has found its own entry in this start, and three that
    differ from stored ones in the seed only have missed theirs. From then on a request that does not find its own entry
    gets an unused one that differs in the seed only. `exact` never does that, `ignore` always does. In a replay, where
    those three could not be asked again, none has to miss.

    Usable entries are given. In a replay failures are too, those whose end the harness was told, when the usable ones
    of the same request are used up.

    Args:
        connection: of the store.
        wanted: which entries.
        taken: ids of entries that are not to be given.
    """

    def __init__(
        self, connection: sqlite3.Connection, wanted: Wanted | None = None, *, taken: frozenset[int] = frozenset()
    ) -> None:
        wanted = wanted or Wanted()
        self.damaged = 0
        """Entries that were found damaged, and not given."""
        self.connection: sqlite3.Connection | None = connection
        """Where entries are read, None while that is not possible; the same entries have the same ids anywhere."""
        self._packer = Packer()
        of_it, values = _condition(connection, wanted)
        self._usable = Claims(_rows(connection, f"{_USABLE} AND {of_it}", values), used=taken)
        failed = _rows(connection, f"{_FAILED} AND {of_it}", values) if wanted.is_replay else ()
        self._failed = Claims(failed, used=taken)
        self._takes_any_seed = wanted.seeds == "ignore" or (
            wanted.seeds == "auto" and _look_drawn(connection, of_it, values)
        )
        self._is_sure = wanted.seeds != "auto"
        self._misses_left = 0 if self._is_sure or wanted.is_replay else _MISSES_OF_DRAWN_SEEDS
        if wanted.origin is not None and not self._usable:
            _tell_of_other_origins(connection, wanted)

    def __len__(self) -> int:
        return len(self._usable) + len(self._failed)

    def find(self, identity: Identity) -> Found | None:
        """Claim and read an entry for a request; None when there is none.

        Raises:
            sqlite3.Error: the file cannot be read; the entry stays unused.
        """
        if not self:
            return None
        found = self._exact(self._usable, identity) or self._exact(self._failed, identity)
        if not identity.has_seed:
            return found
        if found is not None:
            if not self._is_sure:
                # This harness asks with the same seeds as before.
                self._takes_any_seed, self._is_sure = False, True
            return found
        if not self._takes_any_seed:
            return None
        if self._misses_left:
            # Of a harness that repeats its seeds some may be missing, too: those that were under way at its end.
            self._misses_left -= self._usable.has_loose(identity)
            return None
        return self._loose(self._usable, identity) or self._loose(self._failed, identity)

    def _exact(self, claims: Claims, identity: Identity) -> Found | None:
        return self._first(claims, claims.exact(identity), identity, is_exact=True) if claims else None

    def _loose(self, claims: Claims, identity: Identity) -> Found | None:
        return self._first(claims, claims.loose(identity), identity, is_exact=False) if claims else None

    def _first(self, claims: Claims, places: Iterator[int], identity: Identity, *, is_exact: bool) -> Found | None:
        for place in places:
            try:
                found = self._read(claims.id_of(place), identity, is_exact=is_exact)
            except sqlite3.Error:
                claims.give_back(place)
                raise
            if found is not None:
                return found
        return None

    def _read(self, id_: int, identity: Identity, *, is_exact: bool) -> Found | None:
        if self.connection is None:
            raise sqlite3.OperationalError("the store is being repaired")
        try:
            row = self.connection.execute(_READ, (id_,)).fetchone()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                raise
            row = None
        if row is None:
            self._damage(id_)
            return None
        found = self._sound(id_, row)
        if found is None:
            self._damage(id_)
        elif (row[0] != identity.key) if is_exact else ((row[1] or row[0]) != identity.loose):
            return None
        elif not found.is_usable and found.content.told is None:
            # What the harness did not wait for has no end that it was told.
            return None
        return found

    def _sound(self, id_: int, row: tuple[Any, ...]) -> Found | None:
        key, loose, status, is_usable, attempt, seconds, first, cost, sent, received, packed, digest = row
        # Damaged columns may hold anything.
        try:
            if checksum(key, loose, status, packed) != digest:
                return None
            return Found(
                id=id_,
                status=status,
                is_usable=bool(is_usable),
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
SELECT e.key, e.loose, e.status, e.is_usable, e.attempt, e.seconds, e.first_byte_seconds, e.cost, e.request_bytes,
       e.response_bytes, c.packed, c.checksum
FROM entry e JOIN content c ON c.id = e.id WHERE e.id = ?
"""

_HAS_KEY = f"typeof(key) = 'blob' AND length(key) = {KEY_BYTES}"
_USABLE = f"is_usable = 1 AND kept & {KEPT_RESPONSE} AND {_HAS_KEY}"
_FAILED = f"is_usable = 0 AND (status = 0 OR kept & {KEPT_RESPONSE}) AND {_HAS_KEY}"


def _condition(connection: sqlite3.Connection, wanted: Wanted) -> tuple[str, list[Any]]:
    """What entries must meet, and its values."""
    if wanted.origin is None:
        return "upstream = ?", [wanted.upstream]
    origin = origin_of(wanted.origin)
    places = [
        id_ for id_, address in connection.execute("SELECT id, address FROM place") if origin_of(address) == origin
    ]
    return f"upstream = ? AND address IN ({', '.join(map(str, places))})", [wanted.upstream]


def _rows(connection: sqlite3.Connection, condition: str, values: list[Any]) -> Iterator[tuple[bytes, bytes, int]]:
    cursor = connection.execute(
        f"SELECT ifnull(loose, key) AS any_seed, key, id FROM entry WHERE {condition} "  # noqa: S608  ours
        f"AND (loose IS NULL OR (typeof(loose) = 'blob' AND length(loose) = {KEY_BYTES})) ORDER BY any_seed, key, id",
        values,
    )
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield from rows


def _look_drawn(connection: sqlite3.Connection, condition: str, values: list[Any]) -> bool:
    """Whether the seeds of the entries look like random numbers rather than like a count or a constant."""
    count, distinct, large = connection.execute(
        "SELECT count(*), count(DISTINCT seed), coalesce(sum(seed NOT BETWEEN ? AND ?), 0) FROM entry "  # noqa: S608  ours
        f"WHERE {_USABLE} AND typeof(seed) = 'integer' AND {condition}",
        (-_SMALL_SEED + 1, _SMALL_SEED - 1, *values),
    ).fetchone()
    return bool(2 * distinct > count and 2 * large > count)


def _tell_of_other_origins(connection: sqlite3.Connection, wanted: Wanted) -> None:
    """Say why nothing is given again, where an endpoint of this name was asked at other addresses only."""
    found = connection.execute(
        f"SELECT p.address FROM entry e JOIN place p ON p.id = e.address WHERE {_USABLE} AND upstream = ? LIMIT 1",  # noqa: S608  ours
        (wanted.upstream,),
    ).fetchone()
    if found:
        _log.warning(
            "none of the stored answers of the endpoint %r is given again: they came from %s, and now it is %s. "
            "In a store outside of the run's own folder only answers from the same address count",
            wanted.upstream,
            found[0],
            wanted.origin,
        )
