"""The keys that the proxy itself sends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nemo_evaluator.adapters.route import Route
from nemo_evaluator.core.api_key import read_key


def check_keys(routes: Iterable[Route], environ: Mapping[str, str]) -> None:
    """Refuse a run whose proxy would have no key for an endpoint.

    Raises:
        MisconfigurationError: a variable is unset or empty, or its value cannot stand in an HTTP header.
    """
    for route in routes:
        read_key(route.api_key_name, environ, setting=f"adapter_config.upstreams.{route.name}.api_key_name")
