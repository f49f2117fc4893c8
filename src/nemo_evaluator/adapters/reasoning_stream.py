"""Takes the reasoning out of streamed answers, event by event.

Whether text is reasoning shows only at the last end token, and there may always be another one. So the text of a choice
is held until the choice ends or its reasoning turns out to stand in a field of its own; then the text flows. Everything
else flows all the time, events without their text included, so that a reader who waits sees that the model is at work.
The text comes in an event of its own, just before the one with the finish reason. The text of all events of a choice
together is what the same answer would have had in one piece.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.json_text import exact_json, lenient_json
from nemo_evaluator.adapters.messages import BodyStream, Decoder, TooLargeError
from nemo_evaluator.adapters.reasoning_counts import Reasoned
from nemo_evaluator.adapters.reasoning_text import FIELDS, ReasoningRules, choices_of, is_assistant

_DATA = b"data:"
_DONE = b"[DONE]"
_OF_THE_NEXT = (b"event:", b"id:")
"""Lines that belong to the event whose data follow."""

Told = Callable[[Reasoned], None]


class _Choice:
    """One streamed message."""

    def __init__(self, rules: ReasoningRules) -> None:
        self._rules = rules
        self._content: list[str] = []
        self._field: list[str] = []
        self._field_name: str | None = None
        self._sent_field = False
        self._has_content = False
        self._has_calls = False
        self._is_foreign = False

    def take(self, delta: dict[str, Any]) -> bool:
        """Take in a piece, and leave in it what may flow; whether it was changed."""
        self._is_foreign = self._is_foreign or not is_assistant(delta)
        if self._is_foreign:
            return False
        self._has_calls = self._has_calls or bool(delta.get("tool_calls"))
        field = self._take_field(delta)
        content = delta.get("content")
        if isinstance(content, str):
            self._content.append(content)
            self._has_content = True
        if self._rules.removes:
            return self._hold_or_release(delta)
        return self._migrate(delta, field)

    def _take_field(self, delta: dict[str, Any]) -> str:
        if self._field_name is None:
            self._field_name = next((name for name in FIELDS if delta.get(name) is not None), None)
        value = delta.get(self._field_name) if self._field_name else None
        text = "" if value is None else str(value)
        self._field.append(text)
        return text

    def _hold_or_release(self, delta: dict[str, Any]) -> bool:
        """Without a field for reasoning, hold the content; with one, let it go, what was held before included."""
        content = delta.get("content")
        if self._field_name is None:
            if content and isinstance(content, str):
                delta["content"] = ""
                return True
            return False
        if self._sent_field:
            return False
        self._sent_field = True
        held = "".join(self._content)
        if held and held != content:
            delta["content"] = held
            return True
        return False

    def _migrate(self, delta: dict[str, Any], field: str) -> bool:
        """Let the reasoning go as content, and hold the content until no more reasoning can come."""
        begins = bool(field) and not self._sent_field
        self._sent_field = self._sent_field or bool(field)
        before = delta.get("content")
        if field:
            delta["content"] = (self._rules.start or "") + field if begins else field
        elif isinstance(before, str):
            delta["content"] = ""
        return bool(delta.get("content") != before)

    def settle(self, tell: Told) -> str:
        """The message is complete: what of its text has not been sent yet."""
        if self._is_foreign or not (self._has_content or self._field_name):
            return ""
        content = "".join(self._content)
        field = "".join(self._field) if self._field_name else None
        if self._rules.removes:
            if self._has_content:
                tell(self._rules.reasoned(content, field, has_calls=self._has_calls))
            return "" if self._field_name else self._rules.updated(content, None)
        return (self._rules.end if self._sent_field else "") + content


class ReasoningRewriter:
    """Rewrites a stream of server-sent events; its chunks may be cut anywhere.

    Args:
        rules: what becomes of the content.
        tell: called for each message at its end.
    """

    def __init__(self, rules: ReasoningRules, tell: Told) -> None:
        self._rules = rules
        self._tell = tell
        self._rest = bytearray()
        self._ahead: list[bytes] = []
        self._choices: dict[Any, _Choice] = {}
        self._last: dict[str, Any] = {}

    @property
    def is_clear(self) -> bool:
        """Whether nothing that came is held."""
        return not (self._rest or self._ahead or self._choices)

    def feed(self, chunk: bytes) -> bytes:
        """What goes on when `chunk` has come.

        Raises:
            UpstreamFailure: an event is not JSON.
        """
        if self._rest:
            # Put together once for each line, not once for each piece of it.
            self._rest += chunk
            if b"\n" not in chunk:
                return b""
            chunk = bytes(self._rest)
        *lines, last = chunk.split(b"\n")
        self._rest = bytearray(last)
        return b"".join([self._line(line + b"\n") for line in lines])

    def finish(self) -> bytes:
        """What is left at the end."""
        rest = bytes(self._rest)
        self._rest.clear()
        out = self._line(rest) if rest else b""
        settled = self._settle_all()
        return out + b"".join(self._ahead) + settled

    def _line(self, line: bytes) -> bytes:
        if line.startswith(_OF_THE_NEXT):
            self._ahead.append(line)
            return b""
        ahead = b"".join(self._ahead)
        self._ahead.clear()
        text = line[len(_DATA) :].strip() if line.startswith(_DATA) else b""
        if not text:
            return ahead + line
        if text == _DONE:
            return self._settle_all() + ahead + line
        extra, changed = self._event(text)
        end = b"\r\n" if line.endswith(b"\r\n") else b"\n" if line.endswith(b"\n") else b""
        return extra + ahead + (line if changed is None else b"data: " + changed + end)

    def _event(self, text: bytes) -> tuple[bytes, bytes | None]:
        """The events to put before this one, and what becomes of it; None when it stays as it is."""
        try:
            event = exact_json(text)
        except ValueError as error:
            message = f"an event of the stream is not JSON: {error}"
            raise UpstreamFailure(message, code="unreadable_answer") from error
        extra, is_changed = b"", False
        for choice in choices_of(event):
            self._last = event
            index = choice.get("index")
            key = index if isinstance(index, int) else 0
            delta = choice.get("delta")
            if isinstance(delta, dict):
                state = self._choices.get(key)
                if state is None:
                    state = self._choices[key] = _Choice(self._rules)
                is_changed = state.take(delta) or is_changed
            if choice.get("finish_reason") is not None:
                extra += self._settle(key)
        return extra, lenient_json(event) if is_changed else None

    def _settle(self, key: Any) -> bytes:
        state = self._choices.pop(key, None)
        text = state.settle(self._tell) if state else ""
        if not text:
            return b""
        event = {name: value for name, value in self._last.items() if name not in ("choices", "usage")}
        event["choices"] = [{"index": key, "delta": {"content": text}, "finish_reason": None}]
        return b"data: " + lenient_json(event) + b"\n\n"

    def _settle_all(self) -> bytes:
        return b"".join([self._settle(key) for key in list(self._choices)])


class RewrittenStream:
    """A body that is rewritten as it arrives.

    Args:
        body: the endpoint's.
        rewriter: what rewrites it.
        decoder: undoes its content coding.
        limit: most bytes that all of it may unpack to.
        failed: told when the stream turns out to be unreadable.
    """

    def __init__(
        self,
        body: BodyStream,
        rewriter: ReasoningRewriter,
        *,
        decoder: Decoder,
        limit: int,
        failed: Callable[[UpstreamFailure], None],
    ) -> None:
        self._body = body
        self._chunks: AsyncIterator[bytes] = aiter(body)
        self._rewriter = rewriter
        self._decoder = decoder
        self._limit = limit
        self._failed = failed
        self._is_over = False

    @property
    def is_complete(self) -> bool:
        """Whether the reader has all of it."""
        return self._is_over or (self._body.is_complete and self._rewriter.is_clear)

    def __aiter__(self) -> Self:
        """It is its own iterator, and can be read once."""
        return self

    async def __anext__(self) -> bytes:
        """The next bytes that may go on.

        Raises:
            UpstreamFailure: the answer broke off, or cannot be read.
        """
        while not self._is_over:
            chunk = await anext(self._chunks, None)
            self._is_over = chunk is None
            out = self._rewriter.finish() if chunk is None else self._feed(chunk)
            if out:
                return out
        raise StopAsyncIteration

    def _feed(self, chunk: bytes) -> bytes:
        try:
            return self._rewriter.feed(self._decoder.feed(chunk, limit=self._limit))
        except (UpstreamFailure, TooLargeError, ValueError) as error:
            failure = _as_failure(error)
            self._failed(failure)
            try:
                raise failure from error.__cause__
            finally:
                del failure  # its traceback holds this frame

    async def aclose(self) -> None:
        """Stop reading."""
        await self._body.aclose()


def _as_failure(error: Exception) -> UpstreamFailure:
    if isinstance(error, UpstreamFailure):
        return error
    return UpstreamFailure(str(error), code="unreadable_answer")
