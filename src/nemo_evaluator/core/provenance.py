"""What made a number: versions, image, data, settings and command, for `results.yml`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import nemo_evaluator
from nemo_evaluator import env
from nemo_evaluator.adapters.redaction import redact_url
from nemo_evaluator.adapters.route import Route
from nemo_evaluator.adapters.third_party import ThirdParty
from nemo_evaluator.core.definitions import Framework


def provenance(
    framework: Framework,
    document: Mapping[str, Any],
    *,
    command: str,
    effective_url: str,
    routes: Sequence[Route],
    data: Any,
    started: float,
) -> dict[str, Any]:
    """The facts that name what made a result; what is not known is left out.

    Args:
        framework: the definition that was used.
        document: the resolved configuration as it is written, without secrets.
        command: the command that really ran, its proxy's secret left out.
        effective_url: where the requests went, without secrets.
        routes: the endpoints and their chains, the model's first.
        data: what the harness says about the data it read; the definition's list when it says nothing.
        started: Unix time.
    """
    return {
        "nemo_evaluator": nemo_evaluator.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "framework": framework.name,
        "definition": {
            "origin": framework.origin,
            "sha256": hashlib.sha256(framework.file.read_bytes()).hexdigest(),
        },
        "harness": _distribution(framework),
        "image": {
            "name": env.get(env.IMAGE_NAME),
            "digest": env.get(env.IMAGE_DIGEST),
            "base_digest": env.get(env.BASE_DIGEST),
        },
        "data": data or framework.harness.get("data") or None,
        "config_sha256": config_hash(document),
        "endpoint": effective_url,
        "proxy": _chain(routes[0]),
        "interceptors": _third_parties(routes) or None,
        "upstreams": {
            route.name: {"endpoint": redact_url(route.upstream.url), "proxy": _chain(route)} for route in routes[1:]
        }
        or None,
        "command": command,
        "started": timestamp(started),
        "ended": timestamp(datetime.now(UTC).timestamp()),
    }


def _chain(route: Route) -> list[str]:
    return [entry.name for entry in route.chain]


def _third_parties(routes: Sequence[Route]) -> list[dict[str, Any]]:
    """Where the links come from that this installation does not have by itself."""
    used = {entry.name: route.known[entry.name] for route in routes for entry in route.chain}
    return [kind.as_data() for kind in used.values() if isinstance(kind, ThirdParty)]


def config_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of the resolved configuration, equal for equal settings; the output folder does not count."""
    counted = {key: dict(value) if isinstance(value, Mapping) else value for key, value in document.items()}
    config = counted.get("config")
    if isinstance(config, dict):
        config.pop("output_dir", None)
    return hashlib.sha256(json.dumps(counted, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def timestamp(seconds: float) -> str:
    """Unix time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _distribution(framework: Framework) -> dict[str, str] | None:
    """Name and version of the installed distribution that the definition belongs to; None for a folder."""
    if framework.origin == "folder":
        return None
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or ():
            if file.name == framework.file.name and distribution.locate_file(file) == framework.file:
                return {"name": distribution.metadata["Name"], "version": distribution.version}
    return None
