"""The resolved chains of a run as text, for `--dry_run`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from nemo_evaluator.adapters.redaction import redact_interceptor, redact_url
from nemo_evaluator.adapters.registry import ENDPOINT
from nemo_evaluator.adapters.route import Route
from nemo_evaluator.adapters.third_party import ThirdParty
from nemo_evaluator.api.adapter_config import InterceptorConfig

HEADING = "Adapter chain: requests pass from top to bottom, answers from bottom to top"


def chain_text(routes: Iterable[Route]) -> str:
    """One line for each link with its stage and parameters, outermost first, endpoint by endpoint."""
    return "\n".join([HEADING, *(line.rstrip() for route in routes for line in _lines(route))])


def _lines(route: Route) -> Iterator[str]:
    yield ""
    place = f"  (in place of {'.'.join(route.parameter)})" if route.parameter else ""
    yield f"{route.name}  {redact_url(route.upstream.url)}{place}"
    width = max(len(entry.name) for entry in route.chain)
    for entry in route.chain:
        stage = "" if entry.name == ENDPOINT else route.known[entry.name].stage
        yield f"  {stage:<9}  {entry.name:<{width}}  {_told(entry, route)}"


def _told(entry: InterceptorConfig, route: Route) -> str:
    kind = route.known[entry.name]
    told = [
        f"{name}: {json.dumps(value, ensure_ascii=False, default=str)}"
        for name, value in redact_interceptor(entry).config.items()
    ]
    if isinstance(kind, ThirdParty):
        told.append(f"({kind.file or kind.module})")
    return ", ".join(told)
