"""Reading a run's store, from any process, while the run goes on or after it."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nemo_evaluator.adapters.messages import TooLargeError, decode
from nemo_evaluator.adapters.store.packing import Content, Packer, checksum
from nemo_evaluator.adapters.store.reading import open_for_reading
from nemo_evaluator.adapters.store.record import Record, Selection, Texts
from nemo_evaluator.errors import DataError

_ROWS_AT_ONCE = 500
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_MOST_BYTES = 1024 * 1024 * 1024

_COLUMNS = """
e.id, e.start, e.time, e.upstream, p.address, e.request_id, e.attempt, e.sample, e.status, e.is_usable, e.problem,
e.origin, e.seconds, e.first_byte_seconds, e.prompt_tokens, e.completion_tokens, e.reasoning_tokens, e.cached_tokens,
e.cost, e.finish_reason, e.request_bytes, e.response_bytes
"""
_FROM = "FROM entry e LEFT JOIN place p ON p.id = e.address"
_EQUAL = ("sample", "upstream", "status", "finish_reason", "start")


@dataclass(frozen=True, slots=True)
class Start:
    """A start of the run: its number, counted from 1, and when it was, in seconds since the epoch."""

    number: int
    time: float


class StoreReader:
    """The records of a store, read only. It never stands in the way of the run that writes them.

    Args:
        path: the store's file.

    Raises:
        DataError: there is none, or it cannot be read.
        MisconfigurationError: it is something else, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = open_for_reading(path)
        self._packer = Packer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def records(
        self, selection: Selection | None = None, *, limit: int | None = None, newest_first: bool = False
    ) -> Iterator[Record]:
        """The records that `selection` means, in the order of their ids.

        They are read some hundred at a time, each with what was committed by then.

        Args:
            selection: None for all.
            limit: most records.
            newest_first: the other way round.

        Raises:
            DataError: the store cannot be read any more.
        """
        selection = selection or Selection()
        conditions, values = _where(selection)
        order = "DESC" if newest_first else "ASC"
        text = _needles(selection.text) if selection.text else ()
        last: int | None = None
        left = limit
        while left is None or left > 0:
            paged = [*conditions, f"e.id {'<' if newest_first else '>'} ?"] if last is not None else conditions
            where = f"WHERE {' AND '.join(paged)}" if paged else ""
            parameters = [*values, last] if last is not None else values
            rows = self._all(
                f"SELECT {_COLUMNS} {_FROM} {where} ORDER BY e.id {order} LIMIT {_ROWS_AT_ONCE}",
                parameters,
            )
            for row in rows:
                last = row[0]
                if text and not self._has_text(row[0], text):
                    continue
                yield _record(row)
                if left is not None:
                    left -= 1
                    if not left:
                        return
            if len(rows) < _ROWS_AT_ONCE:
                return

    def record(self, id: int) -> Record:  # noqa: A002  the word for it
        """One record.

        Raises:
            DataError: there is none with this id.
        """
        rows = self._all(f"SELECT {_COLUMNS} {_FROM} WHERE e.id = ?", [id])
        if not rows:
            raise DataError(f"{self.path}: there is no request {id}")
        return _record(rows[0])

    def texts(self, id: int) -> Texts:  # noqa: A002  the word for it
        """The texts of one record; what was not kept is empty.

        Raises:
            DataError: there is none with this id, or it is damaged.
        """
        content = self._content(id)
        coding = next((value for name, value in content.headers if name.lower() == "content-encoding"), "")
        response = content.response
        # A coding that cannot be undone is part of what the endpoint sent.
        with contextlib.suppress(ValueError, TooLargeError):
            response = decode(response, coding, limit=_MOST_BYTES)
        return Texts(request=content.request, response=response, response_headers=tuple(content.headers))

    def count(self, selection: Selection | None = None) -> int:
        """How many records `selection` means.

        Raises:
            DataError: the store cannot be read any more.
        """
        if selection is not None and selection.text:
            return sum(1 for _ in self.records(selection))
        conditions, values = _where(selection or Selection())
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        return int(self._all(f"SELECT count(*) FROM entry e {where}", values)[0][0])  # noqa: S608  constants

    def starts(self) -> tuple[Start, ...]:
        """The starts of the run, the first one first."""
        return tuple(Start(int(number), float(time)) for number, time in self._all("SELECT id, time FROM start", []))

    def _content(self, id_: int) -> Content:
        rows = self._all(
            "SELECT e.key, e.loose, e.status, c.packed, c.checksum FROM entry e JOIN content c ON c.id = e.id "
            "WHERE e.id = ?",
            [id_],
        )
        if not rows:
            raise DataError(f"{self.path}: there is no request {id_}")
        key, loose, status, packed, digest = rows[0]
        try:
            if checksum(key, loose, status, packed) == digest:
                return self._packer.unpack(packed)
        except (TypeError, ValueError):
            pass
        raise DataError(f"{self.path}: the texts of request {id_} are damaged")

    def _has_text(self, id_: int, needles: tuple[str, ...]) -> bool:
        try:
            texts = self.texts(id_)
        except DataError:
            return False
        for data in (texts.request, texts.response):
            text = _unescaped(data.decode(errors="replace")).casefold()
            if any(needle in text for needle in needles):
                return True
        return False

    def _all(self, statement: str, values: list[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._opened.connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise DataError(f"{self.path}: the store cannot be read: {error}") from error


def _where(selection: Selection) -> tuple[list[str], list[Any]]:
    conditions, values = [], []
    for name in _EQUAL:
        value = getattr(selection, name)
        if value is not None:
            conditions.append(f"e.{name} = ?")
            values.append(value)
    if selection.usable is not None:
        conditions.append("e.is_usable = ?")
        values.append(int(selection.usable))
    if selection.starts is not None:
        conditions.append(f"e.start IN ({', '.join('?' * len(selection.starts))})")
        values.extend(selection.starts)
    if selection.after is not None:
        conditions.append("e.id > ?")
        values.append(selection.after)
    return conditions, values


def _needles(text: str) -> tuple[str, ...]:
    """What to look for: the text, and how JSON writes its quotes and line ends."""
    return tuple({text.casefold(), json.dumps(text, ensure_ascii=False)[1:-1].casefold()})


def _unescaped(text: str) -> str:
    """`text` with the characters that JSON has escaped by number."""
    if "\\u" not in text:
        return text
    plain = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    return plain.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


def _record(row: tuple[Any, ...]) -> Record:
    (
        id_, start, time, upstream, address, request_id, attempt, sample, status, is_usable, problem, origin, seconds,
        first, prompt, completion, reasoning, cached, cost, finish_reason, sent, received,
    ) = row  # fmt: skip
    return Record(
        id=id_,
        start=start,
        time=_real(time) or 0.0,
        upstream=upstream,
        address=address or "",
        request_id=request_id,
        attempt=attempt,
        sample=sample,
        status=status,
        is_usable=bool(is_usable),
        problem=problem,
        source="endpoint" if origin is None else "store",
        seconds=_real(seconds) or 0.0,
        first_byte_seconds=_real(first) or 0.0,
        prompt_tokens=_whole(prompt),
        completion_tokens=_whole(completion),
        reasoning_tokens=_whole(reasoning),
        cached_tokens=_whole(cached),
        cost=_real(cost),
        finish_reason=finish_reason,
        request_bytes=sent,
        response_bytes=received,
    )


def _real(value: Any) -> float | None:
    """A number of the file, where a damaged row may have anything."""
    return value if isinstance(value, int | float) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
