from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.record import STORE_FILE
from nemo_evaluator.adapters.store.store import Store
from nemo_evaluator.cli.main import main


def _entry(
    sample: str, answer: bytes, *, status: int = 200, problem: str | None = None, reason: str = "stop"
) -> NewEntry:
    request = json.dumps({"messages": [{"role": "user", "content": f"What of {sample}?"}]}).encode()
    return NewEntry(
        upstream="judge" if sample == "c" else "model",
        address="http://host/v1/chat/completions",
        time=1_700_000_000.0,
        status=status,
        is_usable=problem is None,
        problem=problem,
        sample=sample,
        seconds=1.25,
        facts=AnswerFacts(prompt_tokens=3, completion_tokens=5, finish_reasons=[reason] if problem is None else []),
        request=request,
        response=answer,
        headers=[("Content-Type", "application/json")],
        request_bytes=len(request),
        response_bytes=len(answer),
    )


ENTRIES = (
    _entry("a", b'{"choices": [{"message": {"content": "Forty \\u001b[31m two"}}]}'),
    _entry("b", b"not found\x1b[2J\x9b", status=404, problem="status 404: \x1b[2J not\there"),
    _entry("c", b'{"choices": []}', reason="length"),
    _entry("a", b"\xff\xfe", status=0, problem="no connection"),
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    async def fill() -> None:
        with closing(Store(tmp_path / "run" / "cache" / STORE_FILE)) as store:
            for entry in ENTRIES:
                assert await store.put(entry)

    asyncio.run(fill())
    return tmp_path / "run"


def _out(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    code = main(["requests", *map(str, arguments)])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def test_in_pipes_it_is_one_line_for_each_request(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split("\t") for line in _out(capsys, run).splitlines()]
    assert [line[:1] + line[2:] for line in lines] == [
        ["1", "model", "a", "200", "3/5", "1.25", "stop"],
        ["2", "model", "b", "404", "3/5", "1.25", "status 404: \\u001b[2J not here"],
        ["3", "judge", "c", "200", "3/5", "1.25", "length"],
        ["4", "model", "a", "-", "3/5", "1.25", "no connection"],
    ]
    assert _out(capsys, run / "cache") == _out(capsys, run / "cache" / STORE_FILE) == _out(capsys, run)


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--failed"], [2, 4]),
        (["--status", "404"], [2]),
        (["--status", "0"], [4]),
        (["--sample", "a"], [1, 4]),
        (["--sample", "a", "--failed"], [4]),
        (["--finish-reason", "length"], [3]),
        (["--upstream", "judge"], [3]),
        (["--grep", "WHAT OF B"], [2]),
        (["--limit", "2"], [3, 4]),
        (["--limit", "0"], [1, 2, 3, 4]),
        (["--grep", "nowhere"], []),
    ],
)
def test_filters(run: Path, capsys: pytest.CaptureFixture[str], options: list[str], ids: list[int]) -> None:
    assert [record["id"] for record in json.loads(_out(capsys, run, *options, "--json"))] == ids
    assert [int(line.split("\t")[0]) for line in _out(capsys, run, *options).splitlines()] == ids


def test_a_terminal_gets_a_table(run: Path) -> None:
    main_end, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "nemo_evaluator", "requests", str(run)],
        stdout=terminal,
        stdin=terminal,
        env={**os.environ, "COLUMNS": "140", "TERM": "dumb"},
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(main_end, 65536):
                shown += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(main_end)
    assert process.returncode == 0
    assert re.search(rb"id +time +endpoint +sample", shown)
    assert b"\x1b[2J" not in shown
    assert b"no connection" in shown


@pytest.mark.parametrize("words", [["show", "1"], ["--id", "1"]])
def test_one_request_is_shown_whole_and_safe(run: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    shown = _out(capsys, run, *words)
    assert '"content": "What of a?"' in shown
    assert "Forty \\u001b[31m two" in shown
    assert "Content-Type: application/json" in shown
    assert re.search(r"^sample: +a$", shown, re.MULTILINE)


def test_what_is_no_json_is_shown_as_text(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = _out(capsys, run, "show", "2")
    assert "not found\\u001b[2J" in shown
    assert "\x1b" not in shown
    assert json.loads(_out(capsys, run, "show", "4", "--json"))["response_base64"] == "//4="


def test_export_is_json_lines(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in _out(capsys, run, "export").splitlines()]
    assert [line["id"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["request"]["messages"][0]["content"] == "What of a?"
    assert lines[2]["response"] == {"choices": []}
    assert "response" not in lines[3]
    output = tmp_path / "out.jsonl"
    output.write_text("before")
    assert _out(capsys, run, "export", "--failed", "--output", output) == ""
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == [2, 4]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", "run"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "77"], 7, "there is no request 77"),
        (["show"], 2, "`show ID`"),
        (["show", "x"], 2, "`show ID`"),
        (["shw", "1"], 2, "`show ID`"),
        (["--output", "x"], 2, "--output goes with `export`"),
        (["--limit", "-1"], 2, "--limit"),
        (["export", "--output", "/nowhere/x"], 1, "/nowhere"),
    ],
)
def test_mistakes_are_said_in_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["requests", str(run), *arguments]) == code
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_a_folder_without_a_store_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["requests", str(tmp_path)]) == 2
    assert "there is no store of requests here" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(run: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m nemo_evaluator requests {run} export | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
