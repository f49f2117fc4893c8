"""Reads rows out of the pages of an SQLite file, whatever has become of the rest of it.

The form of the pages is that of https://www.sqlite.org/fileformat2.html, sections 1.5, 1.6, 2.1 and 4.1. Only leaves of
tables are looked at: rows of a store are never changed or deleted, so any page that was ever written holds rows that
are right, wherever it stands: in the database, in its write-ahead log, or in what is left of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

Value = int | float | bytes | str | None
Row = tuple[int, tuple[Value, ...]]

_LEAF = 0x0D
_LEAF_HEADER = 8
_LOG_HEADER = 32
_FRAME_HEADER = 24
_FIRST_PAGE_HEADER = 100
_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)
_FLOAT = 7
_ZERO = 8
_ONE = 9
_FIRST_BLOB = 12
_MOST_COLUMNS = 100
_DOUBLE = struct.Struct(">d")
_LONGEST_VARINT = 9


class PageFile:
    """The pages of a database and of its log.

    Args:
        database: the database's file.
        log: its write-ahead log; it need not exist.
        size: bytes of a page.
    """

    def __init__(self, database: BinaryIO, log: BinaryIO | None, *, size: int) -> None:
        self._size = size
        self._database = database
        self._log = log
        self._bytes = sum(file.seek(0, os.SEEK_END) for file in (database, log) if file is not None)
        self._frames: dict[int, int] = {}
        """Of each page the place of its newest form in the log."""

    def rows(self) -> Iterator[Row]:
        """All rows that can be read, many of them several times; what they hold is to be checked."""
        # Pages that a row is continued in may stand behind it.
        for place, number in self._numbers():
            self._frames[number] = place
        for place, number in self._numbers():
            yield from self._page_rows(self._read(self._log, place), _FIRST_PAGE_HEADER if number == 1 else 0)
        place = 0
        while page := self._read(self._database, place):
            yield from self._page_rows(page, 0 if place else _FIRST_PAGE_HEADER)
            place += self._size

    def _page_rows(self, page: bytes, start: int) -> Iterator[Row]:
        if len(page) > start and page[start] == _LEAF:
            # A page that was cut may have whole rows.
            yield from self._leaf(page.ljust(self._size, b"\0"), start)

    def _numbers(self) -> Iterator[tuple[int, int]]:
        """Where each page of the log stands, and its number."""
        place = _LOG_HEADER
        while self._log is not None:
            self._log.seek(place)
            header = self._log.read(_FRAME_HEADER)
            if len(header) < _FRAME_HEADER:
                break
            yield place + _FRAME_HEADER, int.from_bytes(header[:4], "big")
            place += _FRAME_HEADER + self._size

    def _read(self, file: BinaryIO | None, place: int) -> bytes:
        if file is None or not 0 <= place < self._bytes:
            return b""
        file.seek(place)
        return file.read(self._size)

    def _leaf(self, page: bytes, start: int) -> Iterator[Row]:
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        pointers = start + _LEAF_HEADER
        for index in range(min(count, (self._size - pointers) // 2)):
            at = pointers + 2 * index
            cell = int.from_bytes(page[at : at + 2], "big")
            try:
                yield from self._cell(page, cell)
            except (ValueError, IndexError, struct.error):
                continue

    def _cell(self, page: bytes, at: int) -> Iterator[Row]:
        size, at = _varint(page, at)
        row_id, at = _varint(page, at)
        if not 0 <= size <= self._bytes:
            return
        local = self._local(size)
        if at + local > len(page):
            return
        payload = page[at : at + local]
        if local == size:
            yield row_id, _record(payload)
            return
        first = int.from_bytes(page[at + local : at + local + 4], "big")
        for rest in self._overflow(first, size - local):
            try:
                yield row_id, _record(payload + rest)
            except (ValueError, IndexError, struct.error):
                continue

    def _local(self, size: int) -> int:
        """Bytes of a payload that stand in the leaf itself."""
        most = self._size - 35
        if size <= most:
            return size
        least = (self._size - 12) * 32 // 255 - 23
        kept = least + (size - least) % (self._size - 4)
        return kept if kept <= most else least

    def _overflow(self, first: int, size: int) -> Iterator[bytes]:
        """What the chain of pages from `first` on holds: by the database, and by the newest pages of the log."""
        for newest in (True, False):
            parts, number, left = [], first, size
            while left > 0 and number:
                page = self._page(number, newest=newest)
                if len(page) < self._size:
                    break
                part = page[4 : 4 + left]
                parts.append(part)
                left -= len(part)
                number = int.from_bytes(page[:4], "big")
            if left == 0:
                yield b"".join(parts)

    def _page(self, number: int, *, newest: bool) -> bytes:
        if newest and number in self._frames:
            return self._read(self._log, self._frames[number])
        return self._read(self._database, (number - 1) * self._size)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_LONGEST_VARINT):
        byte = data[at]
        at += 1
        if index == _LONGEST_VARINT - 1:
            value = (value << 8) | byte
            break
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:  # noqa: PLR2004  the bit that says that more bytes follow
            break
    return (value - (1 << 64) if value >> 63 else value), at


def _record(payload: bytes) -> tuple[Value, ...]:
    size, at = _varint(payload, 0)
    if not 0 < size <= len(payload):
        raise ValueError("no record")
    kinds = []
    while at < size:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if len(kinds) > _MOST_COLUMNS:
        raise ValueError("no record")
    values = []
    for kind in kinds:
        value, at = _value(payload, at, kind)
        values.append(value)
    return tuple(values)


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind < 0 or kind in (10, 11):
        raise ValueError("no record")
    if kind >= _FIRST_BLOB:
        end = at + (kind - _FIRST_BLOB) // 2
        data = payload[at:end]
        if end > len(payload):
            raise ValueError("no record")
        return (data.decode(errors="replace") if kind % 2 else data), end
    if kind in (_ZERO, _ONE):
        return kind - _ZERO, at
    if kind == 0:
        return None, at
    if kind == _FLOAT:
        return float(_DOUBLE.unpack_from(payload, at)[0]), at + _DOUBLE.size
    end = at + _INTEGER_BYTES[kind]
    return int.from_bytes(payload[at:end], "big", signed=True), end
