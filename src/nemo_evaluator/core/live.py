"""A run's progress where it was started: one line below the harness's output on a terminal, else plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from nemo_evaluator.core.status_words import progress_line, state_line

ERASE = b"\r\x1b[2K"
"""To the line's beginning, and all of it away (ECMA-48: CR, EL 2)."""
DEFAULT_SECONDS = 30.0
_SHORTEST_PAUSE = 0.2
_NARROWEST = 20


class Observer(Protocol):
    """Somebody who is told about a run's status again and again, from the thread that writes it."""

    def update(self, status: Mapping[str, Any]) -> None:
        """Take note of `status`, the document that `status.json` holds now."""
        ...


class LiveLine:
    """One line that stays below whatever a harness prints.

    The line is part of the stream of the harness's output: whoever writes that (`Echo`) passes each piece through
    `around`, and writes what `refresh` gives when nothing else is to be written. A harness's own line that is not
    finished, such as a bar that it draws over, is left alone: ours comes back after the next newline.

    Args:
        width: the terminal's columns at this moment.
        plain: draw with ASCII characters only.
        colour: mark failures by colour.
    """

    def __init__(self, width: Callable[[], int], *, plain: bool = False, colour: bool = True) -> None:
        self._width = width
        self._plain = plain
        self._colour = colour
        self._text = ""
        self._drawn: str | None = None
        self._at_line_start = True
        self._refreshed = 0.0

    @property
    def is_drawn(self) -> bool:
        """Whether it stands on the terminal now."""
        return self._drawn is not None

    def update(self, status: Mapping[str, Any]) -> None:
        """Show `status` from the next drawing on."""
        self._text = progress_line(
            status, width=max(self._width() - 1, _NARROWEST), plain=self._plain, colour=self._colour
        )

    def around(self, chunk: bytes) -> bytes:
        """What to write in order to show `chunk` of the harness's output above the line."""
        erased = self._erase()
        if chunk:
            self._at_line_start = chunk.endswith(b"\n")
        return erased + chunk + self._draw()

    def refresh(self) -> bytes:
        """What to write in order to bring the line up to date; nothing when it is, or must not be drawn now."""
        now = time.monotonic()
        if self._drawn == self._text or not self._at_line_start or now - self._refreshed < _SHORTEST_PAUSE:
            return b""
        self._refreshed = now
        return self._erase() + self._draw()

    def finish(self) -> bytes:
        """What to write in order to leave the terminal as if there had been no line; nothing is drawn afterwards."""
        self._text = ""
        return self._erase()

    def _erase(self) -> bytes:
        if self._drawn is None:
            return b""
        self._drawn = None
        return ERASE

    def _draw(self) -> bytes:
        if not self._text or not self._at_line_start:
            return b""
        self._drawn = self._text
        # The cursor goes back to the beginning, so that what others write does not hang at the line's end.
        return self._text.encode("utf-8", "replace") + b"\r"


class PlainLines:
    """A line at the start, at each change of the state, and every so many seconds between.

    Args:
        say: prints a line.
        seconds: between two lines.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        seconds: float = DEFAULT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._clock = clock
        self._seconds = seconds
        self._state = ""
        self._due = 0.0

    def update(self, status: Mapping[str, Any]) -> None:
        """Print what is due."""
        if status["ended"] is not None or status["state"] in ("starting", "preflight"):
            return
        now = self._clock()
        changed = status["state"] != self._state
        if not changed and now < self._due:
            return
        self._say(state_line(status) if changed and self._state else progress_line(status, plain=True))
        self._state = status["state"]
        self._due = now + self._seconds
