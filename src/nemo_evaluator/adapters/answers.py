"""What answers say about themselves: tokens, finish reasons, tool calls, and whether they are whole and usable."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from nemo_evaluator.adapters.answer_head import kind_of
from nemo_evaluator.adapters.facts import THINKING, THOUGHT, AnswerFacts, says_something, text_of
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.messages import Decoder, TooLargeError, decode
from nemo_evaluator.adapters.usable import (
    Expected,
    error_message,
    flaw_of_body,
    flaw_of_document,
    holds_error,
    holds_list,
    parse_json,
)

__all__ = ["AnswerFacts", "AnswerObserver", "EventStreamReader", "facts_of"]

_WORTH_PARSING = re.compile(
    rb'"(?:finish_reason|usage|tool_calls|function_call|error|refusal|audio|incomplete_details)"\s*:\s*[^n\s]'
)
_TEXT = re.compile(rb'"(?:content|text)"\s*:\s*(?:"[^"]|\[)')
_FURTHER_CHOICE = re.compile(rb'"index"\s*:\s*([1-9]\d{0,8})')
_TAIL_EVENTS = 24
"""Last events with text that are looked at for the end of reasoning: no tokenizer cuts its mark into more pieces."""
_LONGEST_LINE = 4 * 1024 * 1024
_LONGEST_ERROR = 2000
_FIRST_SUCCESS = 200
_FIRST_REDIRECT = 300
_FIRST_ERROR = 400


class AnswerObserver:
    """Watches the bytes of one answer on their way through and holds none of them back.

    Args:
        status: the answer's status.
        headers: its headers, which say of what type and coding it is.
        limit: most bytes that are unpacked or kept for looking at.
        expected: what it must have to be usable; None when nobody asks.
    """

    def __init__(
        self, status: int, headers: Mapping[str, str], *, limit: int, expected: Expected | None = None
    ) -> None:
        self.facts = AnswerFacts()
        self.flaw: str | None = None
        """Why an answer with a status of success cannot be used; known when it is complete."""
        self._expected = expected if _FIRST_SUCCESS <= status < _FIRST_REDIRECT else None
        self._limit = limit
        self._coding = headers.get("Content-Encoding", "")
        kind = kind_of(headers.get("Content-Type", ""))
        self._events = EventStreamReader() if kind == "events" else None
        self._decoder = _decoder(self._coding) if self._events else None
        self._keeps = self._events is None and (kind == "json" or status >= _FIRST_ERROR or self._expected is not None)
        self._kept: list[bytes] = []

    @property
    def facts_so_far(self) -> AnswerFacts:
        """As `facts`, before the answer is complete; empty where only a whole answer can be read."""
        return self.facts if self._events is None else self._events.facts

    @property
    def is_done(self) -> bool:
        """Whether it is a stream of events that said `[DONE]`."""
        return self._events is not None and self._events.is_done

    @property
    def is_cut(self) -> bool:
        """Whether it is a stream of choices that ended before its end."""
        return self._events is not None and self._events.is_cut

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes.

        Raises:
            UpstreamFailure: they are broken, or unpack to more than the limit.
        """
        if self._keeps:
            self._kept.append(chunk)
        if self._events is not None and self._decoder is not None:
            try:
                self._events.feed(self._decoder.feed(chunk, limit=self._limit))
            except (TooLargeError, ValueError) as error:
                raise UpstreamFailure(str(error), code="unreadable_answer") from error

    def finish(self) -> None:
        """The answer is complete: draw the facts from it."""
        if self._events is not None:
            self._events.finish()
            self.facts = self._events.facts
            if self._expected is not None:
                self.flaw = self._events.flaw(self._expected) if self._decoder else self._unknown_coding()
        elif self._keeps:
            self._judge()

    def error_text(self) -> str:
        """What an answer with an error status says: the message of its JSON, else the beginning of its text."""
        try:
            body = self._body()
        except (TooLargeError, ValueError):
            return ""
        try:
            return error_message(parse_json(body))[:_LONGEST_ERROR]
        except ValueError:
            return body[:_LONGEST_ERROR].decode(errors="replace")

    def _judge(self) -> None:
        try:
            body = self._body()
        except (TooLargeError, ValueError) as error:
            self.flaw = str(error) if self._expected is not None else None
            return
        try:
            document = parse_json(body)
        except ValueError:
            # Without a document the texts of flaws come from the bytes.
            self.flaw = flaw_of_body(body, self._expected) if self._expected is not None else None
            return
        self.facts.add(document)
        if self._expected is not None:
            self.flaw = flaw_of_document(document, body, self._expected)

    def _body(self) -> bytes:
        return decode(b"".join(self._kept), self._coding, limit=self._limit)

    def _unknown_coding(self) -> str:
        return f"the stream has the unknown content coding {self._coding!r}"


def _decoder(coding: str) -> Decoder | None:
    try:
        return Decoder(coding or "identity")
    except ValueError:
        return None


def facts_of(body: bytes) -> AnswerFacts:
    """The facts in a JSON answer; none when it is not JSON."""
    facts = AnswerFacts()
    try:
        document = parse_json(body)
    except ValueError:
        return facts
    facts.add(document)
    return facts


class EventStreamReader:
    """Reads along a stream of server-sent events without holding it back.

    Only events that can say something are parsed. `is_cut` tells whether a stream of choices ended before its end.
    """

    def __init__(self) -> None:
        self.facts = AnswerFacts()
        self._rest = bytearray()
        self._error: str | None = None
        self._has_events = False
        self._has_choices = False
        self._choices: set[int] = set()
        self._unfinished: set[int] = set()
        self._is_answering = False
        self._openings: dict[int, str] = {}
        self._tail: deque[bytes] = deque(maxlen=_TAIL_EVENTS)
        self.is_done = False

    @property
    def is_cut(self) -> bool:
        """Whether choices came, but neither `[DONE]` nor a finish reason for each of them."""
        return self._has_choices and not self.is_done and bool(self._unfinished or not self.facts.finish_reasons)

    def flaw(self, expected: Expected) -> str | None:
        """Why the stream is no answer, now that it is at its end; None when it is one."""
        if self._error is not None:
            return f"the stream carries an error: {self._error}"
        if expected == "choices" and not self._has_choices:
            return "the stream has no 'choices'"
        return None if self._has_events else "the stream has no events"

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes, which may end anywhere."""
        rest = self._rest
        if rest:
            # Put together once for each line, not once for each piece of it.
            if len(rest) < _LONGEST_LINE:
                rest += chunk
            elif b"\n" in chunk:
                rest += chunk[chunk.index(b"\n") :]
            if b"\n" not in chunk:
                return
            chunk = bytes(rest)
        *lines, last = chunk.split(b"\n")
        self._rest = bytearray(last)
        for line in lines:
            self._line(line)

    def finish(self) -> None:
        """Take in a last line without a newline, and conclude."""
        self._line(bytes(self._rest))
        self._rest.clear()
        said = self._is_answering or any(map(says_something, self._openings.values()))
        self.facts.has_text = self.facts.has_text or (said and not self._ends_in_reasoning())

    def _line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        text = line[5:].strip()
        if text == b"[DONE]":
            self.is_done = True
        elif text:
            self._has_events = True
            has_text = _TEXT.search(text) is not None
            if has_text:
                self._tail.append(text)
            # One event with choices is enough, and one with an answer's text: most need not be parsed.
            if (
                (has_text and not self._is_answering)
                or (not self._has_choices and b'"choices"' in text)
                or _WORTH_PARSING.search(text)
                or not self._choices.issuperset(map(int, _FURTHER_CHOICE.findall(text)))
            ):
                self._event(text)

    def _event(self, text: bytes) -> None:
        try:
            event = parse_json(text)
        except ValueError:
            return
        self.facts.add(event, is_event=True)
        if isinstance(event, dict):
            self._has_choices = self._has_choices or holds_list(event, "choices")
            if holds_error(event):
                self._error = error_message(event)
            self._follow(event)
            if not self._is_answering:
                self._open(event)

    def _follow(self, event: dict[str, Any]) -> None:
        """Take in which choices there are, and which of them have ended."""
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = _index_of(choice)
                if index not in self._choices:
                    self._choices.add(index)
                    self._unfinished.add(index)
                if isinstance(choice.get("finish_reason"), str):
                    self._unfinished.discard(index)

    def _open(self, event: dict[str, Any]) -> None:
        """See whether the text of a choice has come to its answer; reasoning at the beginning is not kept."""
        for index, piece in _pieces(event):
            text = self._openings.get(index, "") + piece
            if says_something(text) and not THINKING.startswith(text.strip()):
                self._is_answering = True
                self._openings.clear()
                return
            self._openings[index] = _shortened(text)

    def _ends_in_reasoning(self) -> bool:
        """Whether no choice says anything after the mark at which reasoning ends."""
        if b"think" not in b"".join(self._tail):
            return False
        tails: dict[int, str] = {}
        for line in self._tail:
            with contextlib.suppress(ValueError):
                for index, piece in _pieces(parse_json(line)):
                    tails[index] = tails.get(index, "") + piece
        return bool(tails) and all(tail.rstrip().endswith(THOUGHT) for tail in tails.values())


def _shortened(text: str) -> str:
    """A beginning that says nothing so far, as far as what follows can depend on it."""
    _, mark, rest = text.rpartition(THOUGHT)
    if mark:
        return mark + rest
    begin = text.lstrip()
    if begin.startswith(THINKING):
        return THINKING + begin[len(THINKING) :][-len(THOUGHT) :]
    return text


def _index_of(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _pieces(event: Any) -> list[tuple[int, str]]:
    """The texts that an event adds to its choices."""
    choices = event.get("choices") if isinstance(event, dict) else None
    return [
        (_index_of(choice), text_of(choice))
        for choice in (choices if isinstance(choices, list) else ())
        if isinstance(choice, dict)
    ]
