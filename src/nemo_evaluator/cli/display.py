"""Which progress a run shows where it was started."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from typing import TextIO

from nemo_evaluator import env
from nemo_evaluator.cli.words import say
from nemo_evaluator.core.live import DEFAULT_SECONDS, ERASE, LiveLine, PlainLines
from nemo_evaluator.errors import MisconfigurationError


def progress_of(stream: TextIO) -> LiveLine | PlainLines | None:
    """A line at the bottom where the harness's output goes to a terminal, else lines on standard error.

    None where the environment wants nothing of the kind.

    Args:
        stream: where the harness's output goes.

    Raises:
        MisconfigurationError: the environment asks for an impossible number of seconds.
    """
    seconds = _seconds()
    if not seconds:
        return None
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveLine(
            lambda: os.get_terminal_size(stream.fileno()).columns or shutil.get_terminal_size().columns,
            plain=not (stream.encoding or "").lower().startswith("utf"),
            colour=not os.environ.get("NO_COLOR"),
        )
    return PlainLines(_print, seconds=seconds)


def keep_apart(line: LiveLine) -> None:
    """Let log lines replace `line` on the terminal rather than follow it."""
    for handler in logging.getLogger("nemo_evaluator").handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr and sys.stderr.isatty():
            handler.setFormatter(_Erasing(handler.formatter or logging.Formatter(), line))


class _Erasing(logging.Formatter):
    def __init__(self, inner: logging.Formatter, line: LiveLine) -> None:
        super().__init__()
        self._inner = inner
        self._line = line

    def format(self, record: logging.LogRecord) -> str:
        text = self._inner.format(record)
        return f"{ERASE.decode()}{text}" if self._line.is_drawn else text


def _print(text: str) -> None:
    say(f"Progress: {text}", error_stream=True)


def _seconds() -> float:
    text = env.get(env.PROGRESS_SECONDS)
    try:
        seconds = DEFAULT_SECONDS if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise MisconfigurationError(
            f"{env.PROGRESS_SECONDS} must be a number of seconds, or 0 for no progress, not {text!r}"
        )
    return seconds
