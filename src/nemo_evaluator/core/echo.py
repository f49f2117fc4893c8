"""Passing a child's output on to our own, which may be slow, paused or gone."""

from __future__ import annotations

import contextlib
import io
import os
from typing import BinaryIO

from nemo_evaluator.core.live import LiveLine

SAFE_BYTES = 4096
"""POSIX: a pipe that polls as writable takes PIPE_BUF bytes without blocking; Linux has 4096."""


class Echo:
    """Writes to a stream piece by piece, never waiting for it. A stream that fails is left alone from then on.

    Args:
        stream: where to write; None writes nothing.
        line: a line to keep below what is written.
    """

    def __init__(self, stream: BinaryIO | None, *, line: LiveLine | None = None) -> None:
        self._stream = stream
        self._line = line
        self._pending = b""
        self.descriptor: int | None = None
        """What to poll for `POLLOUT` before `proceed`; None when the stream has none, and takes all at once."""
        if stream is not None:
            with contextlib.suppress(io.UnsupportedOperation, AttributeError, OSError, ValueError):
                stream.flush()
                self.descriptor = stream.fileno()

    @property
    def pending(self) -> bool:
        """Whether there is something to write: then the next chunk should not be read yet."""
        return bool(self._pending)

    def write(self, chunk: bytes) -> None:
        """Take `chunk`; it is written by `proceed` when the stream has a descriptor."""
        self._take(chunk if self._line is None else self._line.around(chunk))

    def refresh(self) -> None:
        """Bring the line up to date, unless something else is still to be written."""
        if self._line is not None and not self._pending:
            self._take(self._line.refresh())

    def end_line(self) -> None:
        """Take the line away."""
        if self._line is not None:
            self._take(self._line.finish())

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            return
        if self.descriptor is not None:
            self._pending += chunk
        elif self._stream is not None:
            try:
                self._stream.write(chunk)
                self._stream.flush()
            except (OSError, ValueError):
                self.give_up()

    def proceed(self) -> None:
        """Write what the stream takes without blocking; call it when the descriptor is writable."""
        if self.descriptor is None:
            return
        try:
            written = os.write(self.descriptor, self._pending[:SAFE_BYTES])
        except BlockingIOError:
            return
        except OSError:
            self.give_up()
            return
        self._pending = self._pending[written:]

    def give_up(self) -> None:
        """Write nothing any more: `| head -1` has seen enough, or the terminal was closed."""
        self._stream = None
        self._pending = b""
        self.descriptor = None
