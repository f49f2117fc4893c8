from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_evaluator.core.live import LiveLine, PlainLines
from nemo_evaluator.testing import FakeEndpoint

COLUMNS = 60
HARNESS = """
import contextlib, json, sys, time, urllib.error, urllib.request
url, out = sys.argv[1:3]
for number in range(30):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"question {number}"}]}).encode()
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})).read()
    if number % 10 == 5:
        print(f"the harness has asked {number} questions")
    if number >= 20:
        print(f"\\rbar {number}", end="")
    time.sleep(0.1)
print()
"""
DEFINITION = """
framework: {{name: talker, pkg_name: talker}}
defaults:
  command: {python} {script} {{{{target.api_endpoint.url}}}} {{{{config.output_dir}}}}
  target: {{api_endpoint: {{}}}}
evaluations:
  - name: talker
    defaults: {{config: {{type: talker, supported_endpoint_types: [chat]}}}}
"""
PARSER = """
from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, TaskResult

def parse_output(output_dir):
    metric = MetricResult(scores={"accuracy": Score(value=1.0, stats={})})
    return EvaluationResult(tasks={"talker": TaskResult(metrics={"accuracy": metric})})
"""


class Screen:
    """As much of a terminal as is needed: lines, returns, erasing of a line, colours."""

    def __init__(self) -> None:
        self.lines = [""]
        self.erased: list[str] = []
        self.column = 0

    def feed(self, data: bytes) -> None:
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", data.decode(errors="replace")):
            if part == "\x1b[2K":
                self.erased.append(self.lines[-1])
                self.lines[-1] = ""
            elif part == "\n":
                self.lines.append("")
                self.column = 0
            elif part == "\r":
                self.column = 0
            elif not part.startswith("\x1b"):
                line = self.lines[-1].ljust(self.column)
                self.lines[-1] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)


def on_terminal(command: list[str], **environ: str) -> tuple[int, Screen, bytes]:
    """Runs `command` on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    settings = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    settings |= {"TERM": "xterm", **environ}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=settings)
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the kernel's way of saying that the other end is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    code = process.wait(30)
    screen = Screen()
    screen.feed(written)
    return code, screen, written


@pytest.fixture
def command(add_harness: Callable[..., Path], tmp_path: Path) -> Callable[[FakeEndpoint], list[str]]:
    script = tmp_path / "talker.py"
    script.write_text(HARNESS)
    file = add_harness("talker", DEFINITION.format(python=sys.executable, script=script))
    (file.parent / "output.py").write_text(PARSER)
    return lambda endpoint: [
        sys.executable, "-m", "nemo_evaluator", "run_eval", "--eval_type", "talker", "--model_id", "m",
        "--model_type", "chat", "--model_url", endpoint.chat_url, "--output_dir", str(tmp_path / "run"),
    ]  # fmt: skip


def test_the_line_stays_below_the_output_and_leaves_nothing(command: Callable[[FakeEndpoint], list[str]]) -> None:
    with FakeEndpoint("yes", model_id="m") as endpoint:
        code, screen, _ = on_terminal(command(endpoint))

    assert code == 0
    drawn = [line for line in screen.erased if line]
    assert len(drawn) >= 3
    assert all("requests" in line and len(line) < COLUMNS for line in drawn)
    left = [line.rstrip() for line in screen.lines]
    assert [line for line in left if line.startswith("the harness has")] == [
        "the harness has asked 5 questions",
        "the harness has asked 15 questions",
    ]
    # The harness's own bar, into which it prints once itself, is not mixed with the line.
    assert [line for line in left if "bar" in line] == ["bar 24the harness has asked 25 questions", "bar 29"]
    assert not any(" requests, " in line for line in left)


@pytest.mark.parametrize(("environ", "colours"), [({}, 1), ({"NO_COLOR": "1"}, 0)])
def test_colours_can_be_switched_off(
    command: Callable[[FakeEndpoint], list[str]], environ: dict[str, str], colours: int
) -> None:
    with FakeEndpoint("yes", model_id="m", faults=["400,every=3"]) as endpoint:
        _, _, written = on_terminal([*command(endpoint), "--no_preflight"], **environ)

    assert b" failed" in written
    assert (b"\x1b[31m" in written) == bool(colours)


def test_a_terminal_without_abilities_gets_plain_lines(command: Callable[[FakeEndpoint], list[str]]) -> None:
    with FakeEndpoint("yes", model_id="m") as endpoint:
        _, _, written = on_terminal(command(endpoint), TERM="dumb")

    assert b"\x1b[2K" not in written
    assert b"Progress: " in written


def document(state: str = "running", **samples: Any) -> dict[str, Any]:
    totals = {
        "requests": 12, "failed": 2, "cached": 0, "cost": 0.5, "currency": "USD",
        "rates": {"tokens_per_second": 1234.5, "requests_per_second": 3.0},
    }  # fmt: skip
    known = {"done": 4, "planned": 16, "eta_seconds": 3725.0, "mean_scores": {"accuracy": 0.75}, **samples}
    return {"state": state, "ended": None, "samples": known, "totals": totals}


def line(columns: int, *, colour: bool = False) -> LiveLine:
    return LiveLine(lambda: columns, colour=colour)


def test_the_line_says_how_far_the_run_is() -> None:
    shown = line(200)
    shown.update(document())

    assert shown.around(b"").decode() == (
        "████░░░░░░░░░░░░ 4 of 16 samples (25%), 12 requests, 2 failed, 1h 02m left, 1,234 tokens/s, $0.5000, "
        "accuracy 0.750 so far\r"
    )


@pytest.mark.parametrize(("currency", "text"), [("EUR", "0.5000 EUR"), ("USD", "$0.5000"), (None, "0.5000")])
def test_costs_are_in_their_currency(currency: str | None, text: str) -> None:
    shown = line(200)
    found = document()
    shown.update({**found, "totals": {**found["totals"], "currency": currency}})

    assert f" tokens/s, {text}, accuracy" in shown.around(b"").decode()


def test_the_line_never_wraps() -> None:
    for columns in range(21, 140):
        shown = line(columns)
        shown.update(document())
        assert len(shown.around(b"").decode()) - 1 < columns


def test_unknown_things_are_not_made_up() -> None:
    shown = line(200)
    shown.update(document(eta_seconds=None))
    assert "time left unknown" in shown.around(b"").decode()

    shown.update(document(planned=None, eta_seconds=None))
    text = shown.around(b"").decode()
    assert "left" not in text
    assert "%" not in text


def test_an_unfinished_line_of_the_harness_is_left_alone() -> None:
    shown = line(100)
    shown.update(document())

    assert shown.around(b"whole\n").endswith(b"\r")
    assert shown.around(b"\r 10%") == b"\r\x1b[2K\r 10%"
    shown.update(document(done=5))
    assert shown.refresh() == b""
    assert shown.around(b"\r 20%") == b"\r 20%"
    assert b"5 of 16" in shown.around(b"\r 100%\n")


def test_a_finished_line_is_not_drawn_again() -> None:
    shown = line(100)
    shown.update(document())
    shown.around(b"")

    assert shown.finish() == b"\r\x1b[2K"
    assert shown.around(b"the rest\n") == b"the rest\n"
    assert shown.refresh() == b""


def test_failures_are_coloured() -> None:
    shown = line(100, colour=True)
    shown.update(document())

    assert b"\x1b[31m2 failed\x1b[0m" in shown.around(b"")


def test_plain_lines_come_at_the_start_at_changes_and_now_and_then() -> None:
    said: list[str] = []
    now = 1000.0
    plain = PlainLines(said.append, seconds=30.0, clock=lambda: now)
    plain.update({**document(), "state": "preflight"})
    plain.update(document())
    plain.update(document())
    plain.update(document("paused", eta_seconds=None))
    plain.update(document())
    now += 29.9
    plain.update(document())
    now += 0.2
    plain.update(document())
    plain.update({**document("finished"), "ended": "now"})

    assert len(said) == 4
    assert said[0].startswith("4 of 16 samples (25%)")
    assert said[1].startswith("paused, 4 of 16")
    assert said[2].startswith("running again, 4 of 16")
    assert all(text.isascii() for text in said)
