"""Entries that wait for their commit."""

from __future__ import annotations

import asyncio

from nemo_evaluator.adapters.store.writer import PackedEntry


class Waiting:
    """Entries in their order, each with the future of whoever waits for it.

    Attributes:
        entries: they.
        size: bytes of their contents.
    """

    def __init__(self) -> None:
        self.entries: list[PackedEntry] = []
        self.size = 0
        self._futures: list[asyncio.Future[bool]] = []

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, entry: PackedEntry, future: asyncio.Future[bool]) -> None:
        """Let one wait."""
        self.entries.append(entry)
        self._futures.append(future)
        self.size += len(entry.packed)

    def settle(self, *, is_stored: bool) -> int:
        """Tell all how it ended, and let none wait any more; how many there were."""
        futures, self._futures, self.entries, self.size = self._futures, [], [], 0
        for future in futures:
            # Who waited may have left.
            if not future.done():
                future.set_result(is_stored)
        return len(futures)
