from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters.store.record import STORE_FILE
from nemo_evaluator.adapters.store.store import Store
from nemo_evaluator.core.run_store import store_of_run
from nemo_evaluator.errors import MisconfigurationError


def _run(folder: Path, adapter_config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    document = {"target": {"api_endpoint": {"adapter_config": adapter_config}}}
    (folder / "run_config.yml").write_text(strict_yaml.dumps(document))
    return folder


def _store(folder: Path) -> Path:
    folder.mkdir(parents=True)
    Store(folder / STORE_FILE).close()
    return folder / STORE_FILE


def test_a_store_lies_in_the_run_s_own_folder(tmp_path: Path) -> None:
    file = _store(tmp_path / "cache")

    assert store_of_run(tmp_path) == store_of_run(tmp_path / "cache") == store_of_run(file) == file


@pytest.mark.parametrize("form", ["flags", "list"])
def test_a_store_that_the_configuration_put_elsewhere_is_found(tmp_path: Path, form: str) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    file = _store(tmp_path / "elsewhere")
    entry = {"name": "caching", "config": {"cache_dir": elsewhere}}
    run = _run(tmp_path / "run", {"caching_dir": elsewhere} if form == "flags" else {"interceptors": [entry]})

    assert store_of_run(run) == file


@pytest.mark.parametrize("adapter_config", [None, {}, {"interceptors": ["caching"]}, {"interceptors": 3}, "text"])
def test_a_run_without_a_store_is_said_to_have_none(tmp_path: Path, adapter_config: Any) -> None:
    run = _run(tmp_path / "run", adapter_config)

    with pytest.raises(MisconfigurationError, match="there is no store of requests here"):
        store_of_run(run)
