"""Where the published harnesses keep the URLs of their judges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

EXTRA = ("config", "params", "extra")
_NAME = re.compile(r"judge(?:_\d+)?\Z")
_URL_SUFFIX = "_url"
_SCHEMES = ("http://", "https://")


def judge_parameters(extra: Mapping[str, Any] | None) -> dict[str, tuple[str, ...]]:
    """The judges that `config.params.extra` gives a URL, by name, with the keys of the parameter that holds it.

    These are `judge.url`, `judge_N.url` and `judge_url`, `judge_N_url`, as in the definitions of simple-evals,
    safety-eval and MT-Bench. A mapping comes before a plain key of the same judge.
    """
    found: dict[str, tuple[str, ...]] = {}
    for key, value in (extra or {}).items():
        name = str(key).removesuffix(_URL_SUFFIX)
        if not _NAME.match(name):
            continue
        if isinstance(value, Mapping) and name == key and _is_url(value.get("url")):
            found[name] = (*EXTRA, name, "url")
        elif name != key and _is_url(value):
            found.setdefault(name, (*EXTRA, str(key)))
    return found


def usual_parameter(extra: Mapping[str, Any] | None, name: str) -> tuple[str, ...] | None:
    """The keys of the parameter that holds the URL of the judge `name`, set or not; None when there is none."""
    extra = extra or {}
    section = extra.get(name)
    if isinstance(section, Mapping) and "url" in section:
        return (*EXTRA, name, "url")
    return (*EXTRA, name + _URL_SUFFIX) if name + _URL_SUFFIX in extra else None


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.lower().startswith(_SCHEMES)
