from __future__ import annotations

from pathlib import Path

import pytest

from nemo_evaluator.core import output_folder
from nemo_evaluator.errors import EvaluatorError, MisconfigurationError


def test_good_folder_has_no_problem_and_nothing_left_in_it(tmp_path: Path) -> None:
    output_folder.create(tmp_path / "out")
    assert output_folder.problem(tmp_path / "out") is None
    assert list((tmp_path / "out").iterdir()) == []


def test_file_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(MisconfigurationError, match=r"out cannot be made: File exists.*--output_dir"):
        output_folder.create(tmp_path / "out")


def test_folder_where_nobody_may_write_is_said() -> None:
    # Not even root makes files there.
    problem = output_folder.problem(Path("/proc/self"))
    assert problem is not None
    assert "is not writable" in problem


def test_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_folder, "MIN_FREE_BYTES", 2**62)
    problem = output_folder.problem(tmp_path)
    assert problem is not None
    assert problem.startswith("only ")
    assert "MiB are free on the disk of" in problem


def test_no_room_for_a_file_is_said_with_what_to_do(tmp_path: Path) -> None:
    said = r"disk of .* is full \(No space left on device\).*start the same command"
    with pytest.raises(EvaluatorError, match=said), output_folder.naming_full_disk(tmp_path):
        # Nothing can be written to this device.
        Path("/dev/full").write_text("x")


def test_other_failures_of_files_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), output_folder.naming_full_disk(tmp_path):
        (tmp_path / "missing").read_text()
