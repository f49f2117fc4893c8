"""Where the store of a run's requests lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters.store.borrowed import find_store
from nemo_evaluator.core.former_run import RUN_CONFIG_FILE
from nemo_evaluator.errors import MisconfigurationError


def store_of_run(place: Path) -> Path:
    """The store's file of the run in the folder `place`, wherever its configuration put it.

    Args:
        place: the output folder of a run; a folder with a store, or the file itself, will do as well.

    Raises:
        MisconfigurationError: there is none.
    """
    try:
        return find_store(place)
    except MisconfigurationError:
        folder = _configured(place / RUN_CONFIG_FILE)
        if folder is None:
            raise
        return find_store(folder)


def _configured(run_config: Path) -> str | None:
    """The folder that a run's configuration names for its store; None when it names none."""
    if not run_config.is_file():
        return None
    found: Any = strict_yaml.load(run_config)
    for key in ("target", "api_endpoint", "adapter_config"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    listed = found.get("interceptors")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, Mapping) and entry.get("name") == "caching" and isinstance(entry.get("config"), Mapping):
            folder = entry["config"].get("cache_dir")
            return folder if isinstance(folder, str) else None
    folder = found.get("caching_dir")
    return folder if isinstance(folder, str) else None
