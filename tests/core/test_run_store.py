from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.core.statuses import status

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters.store.record import STORE_FILE
from nemo_evaluator.adapters.store.store import Store
from nemo_evaluator.core.run_store import store_of_run, with_start
from nemo_evaluator.core.status import write_status
from nemo_evaluator.errors import MisconfigurationError


def _run(folder: Path, adapter_config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    document = {"target": {"api_endpoint": {"adapter_config": adapter_config}}}
    (folder / "run_config.yml").write_text(strict_yaml.dumps(document))
    return folder


def _store(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Store(folder / STORE_FILE).close()
    return folder / STORE_FILE


def test_a_store_lies_in_the_run_s_own_folder(tmp_path: Path) -> None:
    file = _store(tmp_path / "cache")

    assert {store_of_run(place).path for place in (tmp_path, tmp_path / "cache", file)} == {file}
    assert store_of_run(tmp_path).starts is None


@pytest.mark.parametrize("form", ["flags", "list"])
def test_a_store_that_the_configuration_put_elsewhere_is_found(tmp_path: Path, form: str) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    file = _store(tmp_path / "elsewhere")
    entry = {"name": "caching", "config": {"cache_dir": elsewhere}}
    run = _run(tmp_path / "run", {"caching_dir": elsewhere} if form == "flags" else {"interceptors": [entry]})

    assert store_of_run(run).path == file


@pytest.mark.parametrize("adapter_config", [None, {}, {"interceptors": ["caching"]}, {"interceptors": 3}, "text"])
def test_a_run_without_a_store_is_said_to_have_none(tmp_path: Path, adapter_config: Any) -> None:
    run = _run(tmp_path / "run", adapter_config)

    with pytest.raises(MisconfigurationError, match="there is no store of requests here"):
        store_of_run(run)


def _recorded(run: Path, file: Path, *starts: int) -> None:
    """What a run in `run` leaves that used `file`."""
    run.mkdir(exist_ok=True)
    store = with_start(None, file, None, folder=run)
    for start in starts:
        store = with_start(store, file, start, folder=run)
    write_status(run, status("finished", store=store.as_dict()))


def test_what_the_run_itself_says_counts_first(tmp_path: Path) -> None:
    run = tmp_path / "run"
    _store(run / "cache")
    file = _store(tmp_path / "shared")
    _recorded(run, file, 2, 5, 5)

    found = store_of_run(run)

    assert (found.path, found.starts) == (file, (2, 5))


def test_a_relative_folder_is_that_of_the_run_whoever_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _store(tmp_path / "shared")
    monkeypatch.chdir(tmp_path)
    _recorded(Path("run"), Path("shared") / STORE_FILE, 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert store_of_run(tmp_path / "run").path == file


def test_another_store_has_other_starts(tmp_path: Path) -> None:
    former = with_start(None, tmp_path / "a" / STORE_FILE, 7, folder=tmp_path)

    assert with_start(former, tmp_path / "b" / STORE_FILE, 1, folder=tmp_path).starts == (1,)
    assert with_start(former, tmp_path / "x" / ".." / "a" / STORE_FILE, 8, folder=tmp_path).starts == (7, 8)


@pytest.mark.parametrize("place", ["run/cache", "shared"])
def test_a_tree_that_was_moved_has_its_store_still(tmp_path: Path, place: str) -> None:
    file = _store(tmp_path / "here" / place)
    _recorded(tmp_path / "here" / "run", file, 1)

    moved = (tmp_path / "here").rename(tmp_path / "there")

    found = store_of_run(moved / "run")
    assert found.path.resolve() == moved / place / STORE_FILE
    assert found.starts == (1,)


def test_a_copy_has_its_own_store(tmp_path: Path) -> None:
    _recorded(tmp_path / "run", _store(tmp_path / "run" / "cache"), 1)

    shutil.copytree(tmp_path / "run", tmp_path / "copy")

    assert store_of_run(tmp_path / "copy").path == tmp_path / "copy" / "cache" / STORE_FILE


def test_what_cannot_be_read_is_no_obstacle(tmp_path: Path) -> None:
    file = _store(tmp_path / "cache")
    write_status(tmp_path, status("finished", store={"path": 3}))

    found = store_of_run(tmp_path)

    assert (found.path, found.starts) == (file, None)
