from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nemo_evaluator.core.sample_count import SampleCount


def line(status: str = "scored", score: float = 1.0, text: str = "") -> str:
    scores = {"accuracy": score} if status == "scored" else {}
    return json.dumps({"id": "x", "status": status, "response": text, "scores": scores}) + "\n"


def add(file: Path, text: str) -> None:
    with file.open("a") as opened:
        opened.write(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "samples.jsonl"


def counts(count: SampleCount) -> tuple[int, int, int]:
    while count.update():
        pass
    return count.done, count.failed, count.kept


def test_records_are_counted_as_they_come(file: Path) -> None:
    count = SampleCount(file)
    assert counts(count) == (0, 0, 0)

    add(file, line() + line("failed"))
    assert counts(count) == (2, 1, 0)
    add(file, line(score=0.0))
    assert counts(count) == (3, 1, 0)
    assert count.mean_scores == {"accuracy": 0.5}


def test_half_a_line_is_no_record_yet(file: Path) -> None:
    count = SampleCount(file)
    whole = line()
    add(file, whole + whole[:20])
    assert counts(count) == (1, 0, 0)

    add(file, whole[20:])
    assert counts(count) == (2, 0, 0)


def test_a_torn_line_of_an_earlier_start_is_cut_and_written_again(file: Path) -> None:
    add(file, line() + line()[:20])
    count = SampleCount(file)
    assert counts(count) == (1, 0, 1)

    with file.open("r+") as opened:
        opened.truncate(len(line()))
    add(file, line("failed") + line())
    assert counts(count) == (3, 1, 1)


def test_failures_of_earlier_starts_are_asked_again(file: Path) -> None:
    add(file, line() + line("failed") + line())
    count = SampleCount(file)

    assert counts(count) == (2, 0, 2)
    add(file, line())
    assert counts(count) == (3, 0, 2)


def test_a_file_that_was_put_in_order_is_counted_anew(file: Path) -> None:
    add(file, line("failed"))
    count = SampleCount(file)
    add(file, line() + line())
    counts(count)

    ordered = file.with_name("new")
    ordered.write_text(line() + line())
    ordered.replace(file)
    assert counts(count) == (2, 0, 0)


def test_text_that_looks_like_a_status_is_text(file: Path) -> None:
    count = SampleCount(file)
    add(file, line(text='"status":"failed"\n'))

    assert counts(count) == (1, 0, 0)


def test_damaged_lines_count_nothing(file: Path) -> None:
    count = SampleCount(file)
    add(file, "nonsense\n[1]\n\n" + line())

    assert counts(count) == (1, 0, 0)


def test_long_lines_are_read_in_the_end(file: Path) -> None:
    count = SampleCount(file, _reads=64)
    add(file, line(text="x" * 1000) * 3 + line())

    assert counts(count) == (4, 0, 0)


def test_a_pipe_in_its_place_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)

    assert counts(SampleCount(file)) == (0, 0, 0)
