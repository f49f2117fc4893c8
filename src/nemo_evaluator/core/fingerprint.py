"""What decides answers without standing in the written configuration: hidden values of headers, and others' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from nemo_evaluator.adapters.route import Route
from nemo_evaluator.adapters.store.identity import may_change_answers
from nemo_evaluator.adapters.third_party import ThirdParty

FINGERPRINT = "fingerprint"
"""The key in `run_config.yml`; who reads that as settings passes over it."""
_DIGEST_BYTES = 8
_DOMAIN = b"fingerprint"
_CHANGED = {
    "code": "the code of the interceptor {!r} is not that of the run",
    "headers": "the header {!r} has another value",
}


def fingerprint(routes: Sequence[Route], environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Digests by which a later start recognises what is not written; empty when everything is written.

    Args:
        routes: the endpoints and their chains, the model's first.
        environ: where values of headers stand.
    """
    found = {"code": dict(_code(routes)), "headers": dict(_headers(routes, environ))}
    return {kind: digests for kind, digests in found.items() if digests}


def changes(former: Any, now: Any) -> Iterator[str]:
    """What differs between two fingerprints, of that which both have."""
    for kind, sentence in _CHANGED.items():
        then, today = (_part(mark, kind) for mark in (former, now))
        for name in sorted({*then} & {*today}):
            if then[name] != today[name]:
                yield sentence.format(name)


def _part(mark: Any, kind: str) -> Mapping[str, Any]:
    part = mark.get(kind) if isinstance(mark, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _code(routes: Sequence[Route]) -> Iterator[tuple[str, str]]:
    for route in routes:
        for entry in route.chain:
            kind = route.known[entry.name]
            if isinstance(kind, ThirdParty) and kind.sha256:
                yield entry.name, kind.sha256


def _headers(routes: Sequence[Route], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A digest of each hidden value; credentials may change between the starts of a run."""
    for route in routes:
        for entry in route.chain:
            for name, value in _hidden(entry.name, entry.config, environ):
                if may_change_answers(name):
                    digest = blake2b(value.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES, key=_DOMAIN)
                    yield (name if route is routes[0] else f"{route.name}: {name}"), digest.hexdigest()


def _hidden(link: str, config: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if link == "payload_modifier":
        for name, value in (config.get("headers_to_add") or {}).items():
            yield name, str(value)
    elif link == "headers":
        for name, variable in (config.get("from_env") or {}).items():
            yield name, environ.get(variable, "").strip(" \t")
        for name, item in (config.get("set") or {}).items():
            if isinstance(item, Mapping) and item.get("env"):
                yield name, str(item.get("prefix") or "") + environ.get(item["env"], "").strip(" \t")
