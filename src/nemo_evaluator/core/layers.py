"""The layers of a configuration and how they are laid over each other.

Lowest first: framework defaults, task defaults, run_config, command-line flags, overrides. A mapping merges into
the mapping below it, any other value replaces it, and null given by a user resets a value to "not set".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_evaluator.adapters.switches import SWITCHES
from nemo_evaluator.core.overrides import Override
from nemo_evaluator.errors import MisconfigurationError
from nemo_evaluator.suggest import did_you_mean

ROOTS = ("config", "target")
IGNORED_ROOTS = ("command", "fingerprint", "framework_name", "pkg_name")
"""What a saved `run_config.yml` holds beside the user's settings; the definition decides these."""
FREE_ROOTS = ("metadata", "global_adapter_config")

_ADAPTER = ("target", "api_endpoint", "adapter_config")
_SECTIONS = frozenset(
    {("config",), ("config", "params"), ("config", "params", "extra"), ("target",), ("target", "api_endpoint")}
)
"""Mappings that every configuration has: in YAML they are often left empty, which means nothing."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of user settings and what to call it in messages."""

    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for, in layers, lowest first."""

    layers: tuple[Layer, ...] = field(default=())

    def value(self, *keys: str) -> Any:
        """The highest layer's value at `keys`; None when no layer has one."""
        for layer in reversed(self.layers):
            found, value = look_up(layer.values, keys)
            if found:
                return value
        return None

    def source(self, keys: Sequence[str]) -> str | None:
        """Which layer set the value at `keys`, or the nearest part of it that a layer holds."""
        for length in range(len(keys), 0, -1):
            for layer in reversed(self.layers):
                if look_up(layer.values, keys[:length])[0]:
                    return layer.source
        return None

    def over(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """`defaults` with all layers laid over them; `global_adapter_config` lies below each layer's own.

        Raises:
            MisconfigurationError: a layer has a value where a mapping belongs.
        """
        merged = dict(defaults)
        for layer in self.layers:
            values: Mapping[str, Any] = {root: layer.values[root] for root in ROOTS if root in layer.values}
            adapter = layer.values.get("global_adapter_config")
            if adapter is not None:
                nested = _nested(_ADAPTER, adapter)
                merged = lay_over(merged, nested, source=f"{layer.source}: global_adapter_config")
                values = _with_joined_discovery(values, adapter)
            merged = lay_over(merged, values, source=layer.source)
        return merged

    @property
    def metadata(self) -> Any:
        """The highest layer's `metadata`; None when no layer has any."""
        return self.value("metadata")


def run_config_layer(document: Any, *, source: str) -> Layer:
    """The layer that a run_config document makes.

    Raises:
        MisconfigurationError: it is not a mapping, or has an unknown key at its top.
    """
    if not isinstance(document, Mapping):
        found = "empty" if document is None else f"a {type(document).__name__}"
        raise MisconfigurationError(f"{source}: must be a mapping with the keys {', '.join(ROOTS)}; it is {found}")
    _check_roots(document, source)
    return Layer(source, _with_one_name_for_the_key(document, source))


def overrides_layer(overrides: Sequence[Override], *, source: str = "--overrides") -> Layer:
    """The layer that `--overrides` make; of two assignments to one key the later counts."""
    values: dict[str, Any] = {}
    for override in overrides:
        _check_roots({override.keys[0]: override.value}, source)
        if override.keys[0] in IGNORED_ROOTS:
            raise MisconfigurationError(f"{source}: {override.keys[0]} comes from the definition and cannot be set")
        nested: Any = override.value
        for key in reversed(override.keys):
            nested = {key: nested}
        values = lay_over(values, nested, source=source)
    return Layer(source, _with_one_name_for_the_key(values, source))


def flags_layer(flags: Mapping[str, str | None]) -> Layer:
    """The layer that command-line flags make; a flag that was not given (None) sets nothing.

    Args:
        flags: dotted key to the flag's value.
    """
    given = [Override(tuple(key.split(".")), value) for key, value in flags.items() if value is not None]
    return Layer("the command line", overrides_layer(given, source="the command line").values)


def _with_one_name_for_the_key(values: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """`values` with `target.api_endpoint.api_key` under its other name `api_key_name`, so that layers compare."""
    found, key_name = look_up(values, ("target", "api_endpoint", "api_key"))
    if not found:
        return values
    if key_name is not None and not isinstance(key_name, str):
        raise MisconfigurationError(f"{source}: target.api_endpoint.api_key: must be the name of a variable")
    endpoint = dict(values["target"]["api_endpoint"])
    del endpoint["api_key"]
    if endpoint.setdefault("api_key_name", key_name) != key_name:
        raise MisconfigurationError(
            f"{source}: target.api_endpoint.api_key and .api_key_name differ; both name the variable that holds the key"
        )
    return {**values, "target": {**values["target"], "api_endpoint": endpoint}}


def lay_over(
    lower: Mapping[str, Any], upper: Mapping[str, Any], *, source: str, keys: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`upper` laid over `lower`; null resets what is below it, but an empty section such as `params:` says nothing.

    Raises:
        MisconfigurationError: `upper` has a value where `lower` has a mapping; `source` names it in the message.
    """
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        if not isinstance(below, Mapping):
            merged[key] = value
        elif isinstance(value, Mapping):
            merged[key] = lay_over(below, value, source=source, keys=(*keys, str(key)))
        elif value is None:
            if (*keys, str(key)) not in _SECTIONS:
                merged[key] = None
        elif _is_switch((*keys, str(key))):
            merged[key] = value
        else:
            place = ".".join((*keys, str(key)))
            raise MisconfigurationError(f"{source}: {place}: must be a mapping, not {type(value).__name__}")
    return merged


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def _with_joined_discovery(values: Mapping[str, Any], adapter: Any) -> Mapping[str, Any]:
    """`values` with the places of `global_adapter_config` in front of their own: those lists are joined."""
    for name in ("modules", "dirs"):
        _, theirs = look_up(adapter, ("discovery", name)) if isinstance(adapter, Mapping) else (False, None)
        _, own = look_up(values, (*_ADAPTER, "discovery", name))
        if isinstance(theirs, list) and isinstance(own, list):
            joined = [*theirs, *(entry for entry in own if entry not in theirs)]
            values = lay_over(values, _nested((*_ADAPTER, "discovery", name), joined), source="global_adapter_config")
    return values


def _is_switch(keys: tuple[str, ...]) -> bool:
    """Whether what stands at `keys` is a mapping of parameters that `true`, `false` or a list may replace."""
    if keys[: len(_ADAPTER)] != _ADAPTER:
        return False
    match keys[len(_ADAPTER) :]:
        case ("upstreams", _):
            return True
        case (name,) | ("upstreams", _, name):
            return name in SWITCHES
        case _:
            return False


def look_up(document: Mapping[str, Any], keys: Sequence[str]) -> tuple[bool, Any]:
    """Whether `document` has a value at `keys`, and the value."""
    value: Any = document
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return False, None
        value = value[key]
    return True, value


def _check_roots(document: Mapping[str, Any], source: str) -> None:
    known = (*ROOTS, *FREE_ROOTS, *IGNORED_ROOTS)
    for key in document:
        if key not in known:
            place = _PLACES.get(str(key))
            meant = f" Did you mean '{place}'?" if place else did_you_mean(str(key), known)
            raise MisconfigurationError(
                f"{source}: unknown key {str(key)!r}.{meant} Known at the top: {', '.join((*ROOTS, *FREE_ROOTS))}"
            )


_PLACES = {
    **{key: f"config.{key}" for key in ("type", "output_dir", "params")},
    **{key: f"config.params.{key}" for key in ("limit_samples", "parallelism", "temperature", "top_p", "extra")},
    **{key: f"target.{key}" for key in ("api_endpoint",)},
    **{key: f"target.api_endpoint.{key}" for key in ("url", "model_id", "api_key", "api_key_name", "adapter_config")},
}
"""Where keys belong that are often put at the top."""
