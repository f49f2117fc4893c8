from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from tests.core.statuses import status

from nemo_evaluator.core.command_file import CONTROL_FILE
from nemo_evaluator.core.control import send
from nemo_evaluator.core.status import SILENT_SECONDS, write_status
from nemo_evaluator.errors import EvaluatorError, UsageError


def test_no_answer_is_an_error_that_says_so(tmp_path: Path) -> None:
    write_status(tmp_path, status("preflight"))

    with pytest.raises(EvaluatorError, match=r"did not answer within 0\.3 s; it is preflight"):
        send(tmp_path, "pause", wait_seconds=0.3)


def test_an_ended_run_takes_no_command(tmp_path: Path) -> None:
    write_status(tmp_path, status("finished"))

    with pytest.raises(UsageError, match=r"no run is under way .*: the last one is finished"):
        send(tmp_path, "pause")
    assert not (tmp_path / CONTROL_FILE).exists()


def test_a_run_that_does_not_respond_is_not_called_dead(tmp_path: Path) -> None:
    write_status(tmp_path, status(ago=SILENT_SECONDS + 1))

    with pytest.raises(EvaluatorError, match=r"does not respond: its process \d+ is there, but has written nothing"):
        send(tmp_path, "stop")
    assert not (tmp_path / CONTROL_FILE).exists()


def test_a_run_that_stops_responding_is_not_called_dead(tmp_path: Path) -> None:
    # It is silent for long enough while its answer is being waited for.
    write_status(tmp_path, status(ago=SILENT_SECONDS - 0.5))

    with pytest.raises(EvaluatorError, match=r"it does not respond: its process .* It may still act on the command"):
        send(tmp_path, "stop", wait_seconds=1.0)


def test_the_answer_to_this_command_counts(tmp_path: Path) -> None:
    write_status(tmp_path, status())
    other = {"id": "other", "command": "stop", "accepted": False, "message": "no"}

    def run() -> None:
        while not (tmp_path / CONTROL_FILE).exists():
            time.sleep(0.01)
        wanted = json.loads((tmp_path / CONTROL_FILE).read_text())
        mine = {"id": wanted["id"], "command": wanted["command"], "accepted": True, "message": "paused", "later": 1}
        write_status(tmp_path, status(answers=[other, mine]))

    thread = threading.Thread(target=run)
    thread.start()
    answer = send(tmp_path, "pause")
    thread.join()

    assert (answer.accepted, answer.message) == (True, "paused")
