"""Where the store of a run's requests lies, and which of the store's starts are the run's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters.store.borrowed import find_store
from nemo_evaluator.adapters.store.reading import is_there
from nemo_evaluator.core.former_run import RUN_CONFIG_FILE
from nemo_evaluator.core.status import STATUS_FILE, read_status
from nemo_evaluator.errors import MisconfigurationError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedStore:
    """What a run says of its store.

    Attributes:
        path: the absolute path of the file, as the run saw it.
        relative: the same from the run's folder, for folders that were moved, or are seen from outside of a container.
        starts: the numbers that the starts of this run have in it.
    """

    path: str
    relative: str
    starts: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """As it stands in `status.json`."""
        return {"path": self.path, "relative": self.relative, "starts": list(self.starts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStore:
    """A store to be read.

    Attributes:
        path: its file.
        starts: those of its starts that are the run's, which may share it with others; None for all.
    """

    path: Path
    starts: tuple[int, ...] | None = None


def recorded_store(folder: Path) -> RecordedStore | None:
    """What the last run in `folder` wrote about its store; None where it wrote nothing that can be read."""
    if not (folder / STATUS_FILE).exists():
        return None
    try:
        store = read_status(folder).document["store"]
    except UsageError:
        return None
    if store is None:
        return None
    return RecordedStore(path=store["path"], relative=store["relative"], starts=tuple(store["starts"]))


def with_start(former: RecordedStore | None, path: Path, start: int | None, *, folder: Path) -> RecordedStore:
    """What a run is to write about its store.

    Args:
        former: what earlier starts wrote; their numbers stay as long as the store is the same.
        path: the store's file.
        start: the number of this start in it; None while it has none.
        folder: the run's.
    """
    # The file may be reached by a link; where that leads to is for the reader to find.
    absolute = os.path.abspath(path)  # noqa: PTH100  `Path.absolute` leaves `..` in it
    starts = former.starts if former is not None and former.path == absolute else ()
    if start is not None and start not in starts:
        starts = (*starts, start)
    return RecordedStore(path=absolute, relative=os.path.relpath(absolute, folder.absolute()), starts=starts)


def store_of_run(place: Path) -> RunStore:
    """The store of the run in the folder `place`, wherever its configuration put it.

    Args:
        place: the output folder of a run; a folder with a store, or the file itself, will do as well.

    Raises:
        MisconfigurationError: there is none.
    """
    recorded = recorded_store(place)
    if recorded is not None:
        found = next((path for path in _places(place, recorded) if is_there(path)), None)
        if found is not None:
            return RunStore(path=found, starts=recorded.starts)
    try:
        return RunStore(path=find_store(place))
    except MisconfigurationError:
        folder = _configured(place / RUN_CONFIG_FILE)
        if folder is None:
            raise
        return RunStore(path=find_store(folder))


def _places(folder: Path, recorded: RecordedStore) -> Iterator[Path]:
    """Where the file may be, the likeliest place first."""
    beside = folder / recorded.relative
    is_within = not recorded.relative.startswith("..")
    # A copy of a folder has its own store within it, although that of the original is there, too.
    yield from (beside, Path(recorded.path)) if is_within else (Path(recorded.path), beside)


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
