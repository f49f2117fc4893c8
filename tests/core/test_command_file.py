from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nemo_evaluator.core.command_file import CONTROL_FILE, MOST_AT_ONCE, CommandFile
from nemo_evaluator.errors import UsageError


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
        '{"id": "1", "command": "concurrency", "value": 99999999999999999999}',
        '{"id": ["1"], "command": "pause"}',
        '{"id": "1", "command": "pause", "by": 7}',
        '{"id": "1", "command": "pause", "more": 1}',
        pytest.param("[" * 60_000, id="deep"),
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


def test_a_pipe_in_its_place_does_not_hold_up_the_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CONTROL_FILE)

    with pytest.raises(UsageError, match="no regular file"):
        CommandFile(tmp_path).poll()


def test_the_largest_limit_is_a_command(tmp_path: Path) -> None:
    (tmp_path / CONTROL_FILE).write_text(json.dumps({"id": "1", "command": "concurrency", "value": MOST_AT_ONCE}))

    found = CommandFile(tmp_path).poll()

    assert found is not None
    assert found.value == MOST_AT_ONCE


def test_commands_for_an_earlier_run_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / CONTROL_FILE).write_text('{"id": "1", "command": "stop"}')
    file = CommandFile(tmp_path)
    file.clear()

    assert file.poll() is None
