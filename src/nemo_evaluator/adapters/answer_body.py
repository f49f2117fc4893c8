"""The body of an answer that is passed on while it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from nemo_evaluator.adapters.answers import AnswerObserver
from nemo_evaluator.adapters.arriving import ArrivingAnswer
from nemo_evaluator.adapters.client_protocol import EXCHANGE_FAILURES
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import UpstreamFailure

Complete = Callable[[Exchange, AnswerObserver | None], None]
"""Told once that an answer is complete; it ends the exchange."""

Failed = Callable[[Exception], UpstreamFailure]
"""What an error means for the harness; it is counted."""


class AnswerBody:
    """A body as it arrives: watched, and counted once when it is complete.

    Args:
        answer: what arrives.
        exchange: what is known about it.
        observer: looks at the bytes; None when nobody wants to know.
        on_complete: called before the harness gets the last bytes.
        on_error: called when it breaks off.
        started: when the request was sent, on the monotonic clock.
    """

    __slots__ = (
        "_answer", "_exchange", "_is_counted", "_is_over", "_kept", "_observer", "_on_complete", "_on_error",
        "_started",
    )  # fmt: skip

    def __init__(
        self,
        answer: ArrivingAnswer,
        exchange: Exchange,
        *,
        observer: AnswerObserver | None,
        on_complete: Complete,
        on_error: Failed,
        started: float,
    ) -> None:
        self._answer = answer
        self._exchange = exchange
        self._observer = observer
        self._on_complete = on_complete
        self._on_error = on_error
        self._started = started
        self._kept = bytearray()
        self._is_over = False
        self._is_counted = False

    @property
    def is_complete(self) -> bool:
        """Whether its length or `[DONE]` said that this is all."""
        return self._is_counted

    def __aiter__(self) -> Self:
        """The body is its own iterator; it can be read once."""
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            UpstreamFailure: the answer broke off, is too large, or did not end in time.
        """
        if self._is_over:
            raise StopAsyncIteration
        try:
            chunk = await self._answer.read()
            self._watch(chunk)
        except EXCHANGE_FAILURES as error:
            self._is_over = True
            self._answer.abandon()
            if self._is_counted:
                # `[DONE]` has come: nothing that follows could change the answer.
                raise StopAsyncIteration from error
            failure = self._on_error(error)
            self._tell_facts()
            self._exchange.end(str(failure))
            try:
                raise failure from error
            finally:
                del failure  # its traceback holds this frame
        if not chunk:
            self._is_over = True
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Stop reading; an answer that is not complete closes its connection, which tells the endpoint."""
        self._is_over = True
        self._answer.abandon()
        self._tell_facts()
        self._exchange.end("the answer was not read to its end")

    def _tell_facts(self) -> None:
        """What a stream has said of itself so far: tokens that were used count, whatever became of it."""
        if self._observer is not None and not self._exchange.is_over:
            self._exchange.facts = self._observer.facts_so_far

    def _watch(self, chunk: bytes) -> None:
        answer, observer, exchange = self._answer, self._observer, self._exchange
        if self._is_counted:
            return
        if chunk and not exchange.first_byte_seconds:
            exchange.first_byte_seconds = answer.first_byte - self._started
        if observer is not None:
            self._kept += chunk
            observer.feed(chunk)
        # Counted before the last bytes go on: who has them may read the statistics, or leave.
        if (answer.is_complete and not answer.is_waiting) or (observer is not None and observer.is_done):
            self._count()

    def _count(self) -> None:
        exchange, observer = self._exchange, self._observer
        if observer is not None:
            observer.finish()
            if observer.is_cut:
                raise UpstreamFailure("the stream ended before it was complete", code="stream_cut")
        self._is_counted = True
        exchange.seconds = (self._answer.ended or time.monotonic()) - self._started
        exchange.received = self._answer.received
        exchange.body = bytes(self._kept)
        self._on_complete(exchange, observer)
