from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.core.statuses import UPSTREAM, status

from nemo_evaluator.core.status import (
    DIED,
    FOREIGN_SILENT_SECONDS,
    SILENT_SECONDS,
    UNRESPONSIVE,
    moment,
    read_status,
    whereabouts,
    write_status,
)
from nemo_evaluator.errors import UsageError

ROOT = Path(__file__).parents[2]


def elsewhere(**process: Any) -> dict[str, Any]:
    """The process of a run that is not in this namespace."""
    return {"process": {**whereabouts()["process"], **process}}


@pytest.fixture
def ended() -> dict[str, Any]:
    """The whereabouts of a process that has ended, and whose id may be in use again."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    return {"pid": child.pid, "process": {**whereabouts()["process"], "start_ticks": 1}}


def state(folder: Path, written: dict[str, Any]) -> str:
    write_status(folder, written)
    return read_status(folder).state


def test_a_living_run_is_as_it_says(tmp_path: Path) -> None:
    write_status(tmp_path, status("paused"))

    found = read_status(tmp_path)

    assert found.state == "paused"
    assert found.is_alive
    assert found.silent_seconds is not None
    assert found.silent_seconds < 5
    assert found.as_dict()["folder"] == str(tmp_path)


def test_a_process_that_is_gone_has_died(tmp_path: Path, ended: dict[str, Any]) -> None:
    assert state(tmp_path, status(**ended)) == DIED


def test_a_process_id_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    assert state(tmp_path, status(**elsewhere(start_ticks=1))) == DIED


def test_an_end_is_an_end_however_long_ago(tmp_path: Path, ended: dict[str, Any]) -> None:
    for end in ("finished", "failed", "interrupted"):
        write_status(tmp_path, status(end, ago=10_000, **ended))
        found = read_status(tmp_path)
        assert (found.state, found.silent_seconds, found.is_alive) == (end, None, False)


def test_a_living_process_that_writes_nothing_does_not_respond(tmp_path: Path) -> None:
    assert state(tmp_path, status(ago=SILENT_SECONDS + 1)) == UNRESPONSIVE


def test_in_a_container_only_silence_tells(tmp_path: Path) -> None:
    # Its process ids mean nothing here.
    container = elsewhere(namespace="pid:[1]") | {"pid": 1, "host": "4f5a"}

    assert state(tmp_path, status(**container)) == "running"
    assert state(tmp_path, status(ago=SILENT_SECONDS + 1, **container)) == DIED


def test_another_machine_may_have_another_clock(tmp_path: Path) -> None:
    other = elsewhere(kernel="another", namespace="pid:[1]") | {"clock": 5.0}

    assert state(tmp_path, status(ago=SILENT_SECONDS + 5) | other) == "running"
    assert state(tmp_path, status(ago=-3600) | other) == "running"
    assert state(tmp_path, status(ago=FOREIGN_SILENT_SECONDS + 1) | other) == DIED


def test_a_clock_that_is_set_kills_no_run(tmp_path: Path) -> None:
    assert state(tmp_path, status(updated=moment(time.time() - 7200))) == "running"


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} holds no run"):
        read_status(tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        read_status(tmp_path / "missing")
    (tmp_path / "results.yml").touch()
    with pytest.raises(UsageError, match=r"holds results, but no status\.json"):
        read_status(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"state": "running"}', '{"format": "x"}', pytest.param("[" * 60_000, id="deep")]
)
def test_what_is_no_status_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)

    with pytest.raises(UsageError, match=r"status\.json is (damaged|not the status of a run)"):
        read_status(tmp_path)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"clock": "x"}, "clock is not a number of seconds"),
        ({"clock": float("nan")}, "clock is not a number of seconds"),
        ({"updated": "x"}, "updated is not a time"),
        ({"updated": 5}, "updated is not a time"),
        ({"pid": "1/../2"}, "pid is not the number of a process"),
        ({"process": None}, "process is not an object"),
        ({"state": "happy"}, "state is not one of starting,"),
        ({"elapsed_seconds": 1e300}, "elapsed_seconds is not a number of seconds"),
        ({"ended": 5}, "ended is not a time"),
        ({"reason": ["x"]}, "reason is not a text"),
        ({"samples": {"done": 1}}, "samples.failed is missing"),
        ({"upstreams": []}, "upstreams is not an object"),
        (
            {"upstreams": {"model": {**UPSTREAM, "errors": {"http_500": "many"}}}},
            "upstreams.model.errors.http_500 is not",
        ),
        ({"answers": [{"id": 1}]}, r"answers\[0\].id is not a text"),
    ],
)
def test_the_first_thing_that_is_wrong_is_named(tmp_path: Path, odd: dict[str, Any], words: str) -> None:
    write_status(tmp_path, {**status(), **odd})

    with pytest.raises(UsageError, match=rf"status\.json is not the status of a run: {words}"):
        read_status(tmp_path)


def test_a_pipe_in_its_place_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "status.json")

    with pytest.raises(UsageError, match="cannot be read: it is no regular file"):
        read_status(tmp_path)


def test_a_pipe_in_place_of_the_next_one_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".status.json.new")

    with pytest.raises(OSError):  # noqa: PT011  which one depends on whether somebody reads there
        write_status(tmp_path, status())


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    write_status(tmp_path, status(format=2))

    with pytest.raises(UsageError, match="a later version"):
        read_status(tmp_path)


def test_readers_never_see_a_part(tmp_path: Path) -> None:
    # The writer is another process, so that both really run at the same time.
    script = f"""
import sys, time
from pathlib import Path
from tests.core.statuses import status
from nemo_evaluator.core.status import write_status
end = time.monotonic() + 1
while time.monotonic() < end:
    write_status(Path({str(tmp_path)!r}), status("finished", filler="x" * 100_000))
"""
    writer = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while not (tmp_path / "status.json").exists():
        time.sleep(0.01)
    seen = 0
    while writer.poll() is None:
        assert len(read_status(tmp_path).document["filler"]) == 100_000
        seen += 1

    assert writer.returncode == 0
    assert seen > 10
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_others_may_read_it_and_nobody_else_may_write_it(tmp_path: Path) -> None:
    write_status(tmp_path, status())

    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o644


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".status.json.new").symlink_to(victim)

    with pytest.raises(OSError, match="symbolic links"):
        write_status(tmp_path, status())

    assert victim.read_text() == "mine"
