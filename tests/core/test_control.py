from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from nemo_evaluator.core.control import CONTROL_FILE, CommandFile, send
from nemo_evaluator.core.status import moment, whereabouts, write_status
from nemo_evaluator.errors import EvaluatorError, UsageError


def tell(folder: Path, state: str, answers: list[dict[str, Any]]) -> None:
    now = {"updated": moment(time.time()), "clock": time.monotonic()}
    write_status(folder, {"format": 1, **whereabouts(), "state": state, **now, "answers": answers})


def test_a_command_is_seen_once(tmp_path: Path) -> None:
    file = CommandFile(tmp_path)
    assert file.poll() is None

    (tmp_path / CONTROL_FILE).write_text(json.dumps({"id": "1", "command": "concurrency", "value": 3}))
    found = file.poll()
    assert found is not None
    assert (found.command, found.value, found.upstream) == ("concurrency", 3, None)
    assert file.poll() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"id": "1"}',
        '{"id": "1", "command": "destroy"}',
        '{"id": "1", "command": "concurrency", "value": 0}',
        '{"id": "1", "command": "concurrency", "value": true}',
        '{"id": "1", "command": "pause", "more": 1}',
    ],
)
def test_what_is_no_command_is_refused_once(tmp_path: Path, text: str) -> None:
    (tmp_path / CONTROL_FILE).write_text(text)
    file = CommandFile(tmp_path)

    with pytest.raises(UsageError, match="is no command"):
        file.poll()
    assert file.poll() is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"id": "1", "command": "stop"}')
    (tmp_path / CONTROL_FILE).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UsageError, match="is no command"):
        CommandFile(tmp_path).poll()


def test_commands_for_an_earlier_run_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / CONTROL_FILE).write_text('{"id": "1", "command": "stop"}')
    file = CommandFile(tmp_path)
    file.clear()

    assert file.poll() is None


def test_no_answer_is_an_error_that_says_so(tmp_path: Path) -> None:
    tell(tmp_path, "preflight", [])

    with pytest.raises(EvaluatorError, match=r"did not answer within 0\.3 s; it is preflight"):
        send(tmp_path, "pause", wait_seconds=0.3)


def test_an_ended_run_takes_no_command(tmp_path: Path) -> None:
    tell(tmp_path, "finished", [])

    with pytest.raises(UsageError, match=r"no run is under way .*: the last one is finished"):
        send(tmp_path, "pause")
    assert not (tmp_path / CONTROL_FILE).exists()
