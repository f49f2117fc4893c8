"""The names of tools in answers, whole and streamed, put back to what the harness calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.json_text import exact_json, to_json
from nemo_evaluator.adapters.messages import BodyStream, Decoder, Response, TooLargeError

_CALLS = re.compile(rb'"(?:tool_calls|function_call)"\s*:\s*[\[{]')


def restore_names(body: bytes, names: Mapping[str, str], *, is_stream: bool = False) -> bytes:
    """`body` with the functions that it calls named as `names` says; the same object when none is.

    Args:
        body: an answer, without content coding.
        names: the harness's names by those that the model was given.
        is_stream: whether it is a whole stream of server-sent events.
    """
    if not _CALLS.search(body):
        return body
    if is_stream:
        return b"\n".join(_restored_line(line, names) for line in body.split(b"\n"))
    try:
        document = exact_json(body)
    except ValueError:
        return body
    return _written(document) if _restore(document, names) else body


def called_functions(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The functions that a message, or a piece of a streamed one, calls."""
    calls = message.get("tool_calls")
    found = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return [function for function in (*found, message.get("function_call")) if isinstance(function, dict)]


class RenamedStream:
    """A stream of events on its way, in which names are restored; a line is passed on when it is complete.

    Args:
        stream: the events as they come.
        names: the harness's names by those that the model was given.
        response: whose coding and limit count.
    """

    __slots__ = ("_chunks", "_decoder", "_limit", "_names", "_rest", "_stream")

    def __init__(self, stream: BodyStream, names: Mapping[str, str], response: Response) -> None:
        self._stream = stream
        self._chunks = aiter(stream)
        self._names = names
        self._limit = response.limit
        try:
            self._decoder = Decoder(response.headers.get("Content-Encoding", "") or "identity")
        except ValueError as error:
            raise UpstreamFailure(f"the answer cannot be read: {error}", code="unreadable_answer") from error
        self._rest = bytearray()

    @property
    def is_complete(self) -> bool:
        """Whether all of it was passed on."""
        return self._stream.is_complete and not self._rest

    def __aiter__(self) -> Self:
        """It can be read once."""
        return self

    async def __anext__(self) -> bytes:
        """The next complete lines; at the end what is left."""
        while True:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                rest = bytes(self._rest)
                self._rest.clear()
                if not rest:
                    raise
                return _restored_line(rest, self._names)
            unpacked = self._unpacked(chunk)
            self._rest += unpacked
            if b"\n" in unpacked:
                *lines, last = bytes(self._rest).split(b"\n")
                self._rest = bytearray(last)
                return b"".join(_restored_line(line, self._names) + b"\n" for line in lines)

    async def aclose(self) -> None:
        """Stop reading."""
        await self._stream.aclose()

    def _unpacked(self, chunk: bytes) -> bytes:
        try:
            return self._decoder.feed(chunk, limit=self._limit)
        except (TooLargeError, ValueError) as error:
            raise UpstreamFailure(str(error), code="unreadable_answer") from error


def _restored_line(line: bytes, names: Mapping[str, str]) -> bytes:
    if not line.startswith(b"data:") or not _CALLS.search(line):
        return line
    try:
        event = exact_json(line[5:])
    except ValueError:
        return line
    end = b"\r" if line.endswith(b"\r") else b""
    return b"data: " + _written(event) + end if _restore(event, names) else line


def _restore(document: Any, names: Mapping[str, str]) -> bool:
    """Whether a name was changed."""
    choices = document.get("choices") if isinstance(document, dict) else None
    changed = False
    for choice in choices if isinstance(choices, list) else ():
        for key in ("message", "delta"):
            message = choice.get(key) if isinstance(choice, dict) else None
            for function in called_functions(message) if isinstance(message, dict) else ():
                if isinstance(name := function.get("name"), str) and name in names:
                    function["name"] = names[name]
                    changed = True
    return changed


def _written(document: Any) -> bytes:
    try:
        return to_json(document)
    except ValueError as error:
        raise UpstreamFailure(
            f"the answer holds a number that JSON has no form for: {error}", code="unreadable_answer"
        ) from error
