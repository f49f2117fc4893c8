"""Which entries of earlier starts were given again in this start."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator

from nemo_evaluator.adapters.store.identity import Identity

_PREFIX = 8


class Claims:
    """The entries of earlier starts by their keys; each is claimed once.

    Sorted arrays and a byte for each entry: 25 bytes an entry, and claiming one of ten thousand equal requests is one
    search for a zero byte. The arrays hold the first 64 bits of each key, so whoever reads an entry compares the whole.

    Args:
        rows: loose key, key and id of each entry, sorted.
        used: ids of entries that are taken from the start.
    """

    def __init__(self, rows: Iterable[tuple[bytes, bytes, int]], *, used: Container[int] = ()) -> None:
        self._loose = array("Q")
        self._keys = array("Q")
        self._ids = array("q")
        self._used = bytearray()
        for loose, key, id_ in rows:
            self._loose.append(_number(loose))
            self._keys.append(_number(key))
            self._ids.append(id_)
            self._used.append(id_ in used)

    def __len__(self) -> int:
        return len(self._ids)

    def id_of(self, place: int) -> int:
        """The id of the entry at a claimed place."""
        return self._ids[place]

    def exact(self, identity: Identity) -> Iterator[int]:
        """Claim the places of unused entries of this very request, the oldest first, for as long as the caller asks."""
        first, last = self._range(identity)
        number = _number(identity.key)
        low = bisect_left(self._keys, number, first, last)
        return self._claim(low, bisect_right(self._keys, number, low, last))

    def loose(self, identity: Identity) -> Iterator[int]:
        """As `exact`, for the same request with any seed."""
        return self._claim(*self._range(identity))

    def has_loose(self, identity: Identity) -> bool:
        """Whether `loose` would find one."""
        return self._used.find(0, *self._range(identity)) >= 0

    def give_back(self, place: int) -> None:
        """The entry at a claimed place is unused again."""
        self._used[place] = 0

    def _range(self, identity: Identity) -> tuple[int, int]:
        number = _number(identity.loose)
        first = bisect_left(self._loose, number)
        return first, bisect_right(self._loose, number, first)

    def _claim(self, low: int, high: int) -> Iterator[int]:
        while (place := self._used.find(0, low, high)) >= 0:
            self._used[place] = 1
            yield place


def _number(key: bytes) -> int:
    return int.from_bytes(key[:_PREFIX], "big")
