from __future__ import annotations

import asyncio
import tracemalloc
from typing import cast

from nemo_evaluator.adapters.arriving import ArrivingAnswer
from nemo_evaluator.adapters.client_protocol import ClientConnection


class _Silent:
    """A connection that is never asked for anything."""


def test_an_answer_of_tiny_pieces_costs_little_more_than_its_bytes() -> None:
    async def collect() -> tuple[int, bytes]:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer = ArrivingAnswer(cast("ClientConnection", _Silent()), ready, limit=10_000_000)
        source = bytes(range(256)) * 4_000
        tracemalloc.start()
        for start in range(0, len(source), 2):
            answer.received += 2
            answer.add(source[start : start + 2])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak, answer.take()

    peak, body = asyncio.run(collect())
    assert body == bytes(range(256)) * 4_000
    assert peak < 3 * len(body)
