"""The body of an answer that is stored as it goes by, and of one that was stored when it broke off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.messages import BodyStream
from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.packing import Told
from nemo_evaluator.adapters.store.store import Store


class StoredStream:
    """A body that is stored when it is complete, just before its last bytes go on."""

    def __init__(  # noqa: PLR0917  made in one place
        self,
        inner: BodyStream,
        exchange: Exchange,
        entry: Callable[[bytes], NewEntry],
        store: Store,
        context: Context,
        coding: str,
    ) -> None:
        self._inner = inner
        self._chunks_left = aiter(inner)
        self._exchange = exchange
        self._entry = entry
        self._store = store
        self._stats = context.stats
        self._chunks: list[bytes] = []
        self._is_stored = False
        # The end of packed data may come after the last event that they hold.
        self._ends_early = coding.lower() == "identity"

    @property
    def is_complete(self) -> bool:
        """Whether this is all."""
        return self._inner.is_complete

    def __aiter__(self) -> Self:
        """The body is its own iterator; it can be read once."""
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            UpstreamFailure: the answer broke off.
        """
        try:
            chunk = await anext(self._chunks_left)
        except StopAsyncIteration:
            await self._keep()
            raise
        except UpstreamFailure as failure:
            await self._keep(failure)
            raise
        except BaseException as error:  # whatever it was, these bytes are not all of the answer
            self._exchange.flaw = self._exchange.flaw or f"the stream was not passed on whole: {type(error).__name__}"
            raise
        if not self._is_stored:
            self._chunks.append(chunk)
            if self._exchange.is_over and self._ends_early:
                await self._keep()
        return chunk

    async def aclose(self) -> None:
        """Stop reading."""
        await self._inner.aclose()
        if not self._is_stored:
            self._is_stored = True
            self._store.add(self._entry(b"".join(self._chunks)))

    async def _keep(self, failure: UpstreamFailure | None = None) -> None:
        if self._is_stored:
            return
        self._is_stored = True
        entry = self._entry(b"".join(self._chunks))
        if failure is not None:
            entry.told = Told(failure.status, failure.code, entry.problem or "")
        self._chunks.clear()
        if not await self._store.put(entry):
            self._stats.not_stored()


class BrokenStream:
    """The body of a stored answer that broke off: what came of it, and the failure that it ended with."""

    def __init__(self, body: bytes, failure: UpstreamFailure) -> None:
        self._body = body
        self._failure = failure

    @property
    def is_complete(self) -> bool:
        """It never is."""
        return False

    def __aiter__(self) -> Self:
        """The body is its own iterator; it can be read once."""
        return self

    async def __anext__(self) -> bytes:
        """All that came.

        Raises:
            UpstreamFailure: at its end.
        """
        body, self._body = self._body, b""
        if not body:
            raise self._failure
        return body

    async def aclose(self) -> None:
        """There is nothing to give back."""
