"""Finds third parties' interceptors: by entry point, in modules, in folders.

Nothing that is found stays anywhere but in Python's table of modules: which ones a run knows is decided by its own
configuration, so that several runs in one process do not see each other's.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_evaluator.adapters.registration import registration_of
from nemo_evaluator.adapters.registry import BUILT_IN, HOOKS, NOT_PUBLIC, Kind
from nemo_evaluator.adapters.third_party import OLD_INTERFACE, ThirdParty, third_party
from nemo_evaluator.api.adapter_config import DiscoveryConfig
from nemo_evaluator.errors import MisconfigurationError

ENTRY_POINT_GROUP = "nemo_evaluator.interceptors"
_MARK_IN_SOURCE = "register_for_adapter"
_PRIVATE_PACKAGE = "_nemo_evaluator_interceptors_"
_loading = threading.RLock()
"""Held while Python's switch for byte code is turned: other threads may load, too."""


@dataclass(slots=True)
class Known:
    """The interceptors that a run knows by name: the built-in ones and those that were found."""

    kinds: dict[str, Kind] = field(default_factory=lambda: dict(BUILT_IN))
    broken: dict[str, str] = field(default_factory=dict)
    """Entry points that cannot be loaded, and why."""

    def add(self, found: ThirdParty) -> None:
        """Make one known.

        Raises:
            MisconfigurationError: another one has its name.
        """
        there = self.kinds.get(found.name)
        if isinstance(there, ThirdParty) and there.target is found.target:
            return
        if there is not None or found.name in (*HOOKS, *NOT_PUBLIC):
            owner = there.origin if isinstance(there, ThirdParty) else "the built-in one"
            raise MisconfigurationError(
                f"{found.origin} registers an interceptor {found.name!r}, but that is the name of {owner}; "
                "give it another name"
            )
        self.kinds[found.name] = found


def discover_interceptors(discovery: DiscoveryConfig, names: Iterable[str]) -> Known:
    """The interceptors that a configuration may name.

    Modules and folders are loaded because the configuration says so; entry points only when something is asked for
    that is not known otherwise, so that a broken package that nobody uses disturbs no run.

    Args:
        discovery: where to look.
        names: the interceptors that the configuration names.

    Raises:
        MisconfigurationError: something cannot be loaded, registers nothing, or is not an interceptor.
    """
    known = Known()
    for name in discovery.modules:
        _add_all(known, _in_module(name), nothing=f"adapter_config.discovery.modules: {name} registers no interceptor")
    for folder in discovery.dirs:
        _add_all(
            known,
            _in_folder(Path(folder)),
            nothing=f"adapter_config.discovery.dirs: no file in {folder} registers an interceptor",
        )
    asked = [name for name in names if name not in known.kinds and name not in (*HOOKS, *NOT_PUBLIC)]
    if asked:
        _add_entry_points(known)
        for name in asked:
            if name in known.broken:
                raise MisconfigurationError(known.broken[name])
    return known


def _add_all(known: Known, found: Iterable[ThirdParty], *, nothing: str) -> None:
    count = 0
    for entry in found:
        known.add(entry)
        count += 1
    if not count:
        raise MisconfigurationError(f"{nothing}: decorate one with register_for_adapter of nemo_evaluator.adapters")


def _in_module(name: str) -> Iterator[ThirdParty]:
    place = f"adapter_config.discovery.modules: {name}"
    with _one_sentence(place, missing=name):
        importlib.import_module(name)
    # A package may register in the modules that it imports.
    prefix = f"{name}."
    for module_name, module in sorted(sys.modules.copy().items()):
        if module_name == name or module_name.startswith(prefix):
            yield from _registered(vars(module), place=f"the module {name}")


def _in_folder(folder: Path) -> Iterator[ThirdParty]:
    place = "adapter_config.discovery.dirs"
    if not folder.is_dir():
        raise MisconfigurationError(f"{place}: there is no folder {folder}")
    sources: dict[str, str] = {}
    for file in sorted(folder.glob("*.py")):
        try:
            sources[file.stem] = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise MisconfigurationError(f"{place}: {file} cannot be read: {error}") from error
    package = _private_package(folder.resolve(), sources)
    for stem, source in sources.items():
        if _MARK_IN_SOURCE in source:
            file = folder / f"{stem}.py"
            with _one_sentence(f"{place}: {file}"):
                module = importlib.import_module(f"{package}.{stem}")
            yield from _registered(vars(module), place=str(file), of=module.__name__)


def _private_package(folder: Path, sources: Mapping[str, str]) -> str:
    """A package whose modules are the files of `folder`, under a name that changes with what they say."""
    digest = hashlib.sha256(str(folder).encode())
    for stem, source in sources.items():
        digest.update(f"\0{stem}\0{source}".encode())
    name = _PRIVATE_PACKAGE + digest.hexdigest()[:16]
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules.setdefault(name, package)
    return name


def _registered(namespace: Mapping[str, Any], *, place: str, of: str | None = None) -> Iterator[ThirdParty]:
    """What is registered in a module; with `of`, what that module itself defines."""
    for value in list(namespace.values()):
        registration = registration_of(value)
        if registration is not None and (of is None or getattr(value, "__module__", None) == of):
            yield third_party(registration, value, place=place)


def _add_entry_points(known: Known) -> None:
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        place = f"the entry point {entry_point.name} = {entry_point.value} ({ENTRY_POINT_GROUP})"
        try:
            with _one_sentence(place):
                value = entry_point.load()
            namespace = vars(value) if isinstance(value, types.ModuleType) else {entry_point.name: value}
            _add_all(known, _registered(namespace, place=place), nothing=f"{place} registers no interceptor")
        except MisconfigurationError as error:
            known.broken[entry_point.name] = str(error)


@contextlib.contextmanager
def _one_sentence(place: str, *, missing: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong while others' code is loaded into one sentence, and write no byte code beside it."""
    with _loading:
        former = sys.dont_write_bytecode
        sys.dont_write_bytecode = True
        try:
            yield from _explained(place, missing)
        finally:
            sys.dont_write_bytecode = former


def _explained(place: str, missing: str | None) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        lacking = error.name or ""
        if missing is not None and (lacking == missing or missing.startswith(f"{lacking}.")):
            raise MisconfigurationError(
                f"{place}: there is no such module; install its package, put its folder on PYTHONPATH, or name the "
                "folder in discovery.dirs"
            ) from error
        older = f". {OLD_INTERFACE}" if lacking.startswith("nemo_evaluator.adapters.") else ""
        raise MisconfigurationError(f"{place} cannot be loaded: {error}{older}") from error
    except (Exception, SystemExit) as error:
        # Whatever others' code raises while it is loaded, the user gets one sentence about it.
        raise MisconfigurationError(f"{place} cannot be loaded: {type(error).__name__}: {error}") from error
