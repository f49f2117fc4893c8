from __future__ import annotations

import io
import logging
import os
import pty
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest

from nemo_evaluator import env
from nemo_evaluator.cli.display import keep_apart, progress_of
from nemo_evaluator.core.live import LiveLine, PlainLines
from nemo_evaluator.errors import MisconfigurationError


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        yield stream
    os.close(ours)


def test_a_terminal_gets_a_line_and_a_pipe_gets_lines(terminal: TextIO) -> None:
    assert isinstance(progress_of(terminal), LiveLine)
    assert isinstance(progress_of(io.TextIOWrapper(io.BytesIO())), PlainLines)


def test_no_seconds_mean_no_progress(terminal: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(env.PROGRESS_SECONDS, "0")

    assert progress_of(terminal) is None


@pytest.mark.parametrize("text", ["often", "-1", "nan", "inf"])
def test_impossible_seconds_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(env.PROGRESS_SECONDS, text)

    with pytest.raises(MisconfigurationError, match=f"{env.PROGRESS_SECONDS} must be a number of seconds"):
        progress_of(sys.stderr)


def test_log_lines_replace_the_line(terminal: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal)
    line = LiveLine(lambda: 80)
    handler = logging.StreamHandler(terminal)
    logger = logging.getLogger("nemo_evaluator")
    logger.addHandler(handler)
    try:
        keep_apart(line)
        record = logger.makeRecord("x", logging.WARNING, "f", 1, "careful", (), None)
        assert handler.format(record) == "careful"
        line.update(
            {
                "state": "running", "samples": {"planned": None, "done": 0, "mean_scores": {}},
                "totals": {"requests": 0, "failed": 0, "cached": 0, "cost": None, "currency": None,
                           "rates": {"tokens_per_second": 0, "requests_per_second": 0}},
            }
        )  # fmt: skip
        line.around(b"")
        assert handler.format(record) == "\r\x1b[2Kcareful"
    finally:
        logger.removeHandler(handler)
