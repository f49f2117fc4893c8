"""Streams whose first bytes are there: until those have gone to the harness, an exchange can still be repeated."""

from __future__ import annotations

from typing import Self

from nemo_evaluator.adapters.messages import BodyStream, Response


class BegunBody:
    """A stream with its first bytes in hand."""

    __slots__ = ("_first", "_rest")

    def __init__(self, first: bytes, rest: BodyStream) -> None:
        self._first: bytes | None = first
        self._rest = rest

    @property
    def is_complete(self) -> bool:
        """Whether the reader has all of it."""
        return self._first is None and self._rest.is_complete

    def __aiter__(self) -> Self:
        """The body is its own iterator; it can be read once."""
        return self

    async def __anext__(self) -> bytes:
        """The next bytes."""
        first, self._first = self._first, None
        return await anext(aiter(self._rest)) if first is None else first

    async def aclose(self) -> None:
        """Stop reading."""
        await self._rest.aclose()


async def begun(response: Response) -> Response:
    """`response`, once the first bytes of its body have come; nothing else is held back.

    Raises:
        UpstreamFailure: the answer broke off before.
    """
    if isinstance(response.body, bytes):
        return response
    stream = response.body
    try:
        first = await anext(aiter(stream), b"")
    except BaseException:
        await stream.aclose()
        raise
    response.body = BegunBody(first, stream) if first else b""
    return response
