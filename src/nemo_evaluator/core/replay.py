"""A run that takes its answers from the store of an earlier one, and asks no endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters.interceptors.caching import CachingParameters, store_file
from nemo_evaluator.adapters.route import Route
from nemo_evaluator.adapters.routes import at
from nemo_evaluator.core.results import PREVIOUS_FILE, RESULTS_FILE
from nemo_evaluator.errors import MisconfigurationError

_STORE = "caching"


def replayed(routes: tuple[Route, ...], output_dir: Path) -> tuple[Route, ...]:
    """The routes of a run, for a replay of it: without keys, and where the earlier run found the model's endpoint.

    Args:
        routes: as `resolve_routes` returns them.
        output_dir: the folder of the run.

    Raises:
        MisconfigurationError: a chain has no store, or there is no file of it.
    """
    for route in routes:
        stores = [entry for entry in route.chain if entry.name == _STORE]
        if not stores:
            raise MisconfigurationError(
                f"a replay takes answers from the store, but the chain of the endpoint {route.name!r} has none: "
                f"switch {_STORE!r} on, by use_caching (flag form) or by its entry among the interceptors (list form)"
            )
        file = store_file(CachingParameters.model_validate(stores[0].config), output_dir)
        if not file.is_file():
            raise MisconfigurationError(
                f"a replay takes answers from the store, but there is none: {file} does not exist. Name the output "
                "folder of the run whose answers are to be taken, or run without --replay first"
            )
    keyless = tuple(replace(route, api_key_name=None) for route in routes)
    former = _former_url(output_dir)
    return at(keyless, former) if former else keyless


def _former_url(output_dir: Path) -> str | None:
    """Where the earlier run found the endpoint, which may be another URL than the one it was given."""
    for name in (RESULTS_FILE, PREVIOUS_FILE):
        file = output_dir / name
        if not file.exists():
            continue
        document = strict_yaml.load(file)
        provenance = document.get("provenance") if isinstance(document, Mapping) else None
        url = provenance.get("endpoint") if isinstance(provenance, Mapping) else None
        if isinstance(url, str):
            return url
    return None
