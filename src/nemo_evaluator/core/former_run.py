"""What an output folder holds from an earlier run, and whether a new one may go on with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters.chain import links
from nemo_evaluator.adapters.judges import EXTRA, usual_parameter
from nemo_evaluator.adapters.neutral import NEUTRAL, NEUTRAL_PARAMETERS
from nemo_evaluator.adapters.registry import BUILT_IN
from nemo_evaluator.api.adapter_config import AdapterConfig, ChainConfig, InterceptorConfig, UpstreamConfig
from nemo_evaluator.core.fingerprint import FINGERPRINT, changes
from nemo_evaluator.core.layers import look_up
from nemo_evaluator.errors import EvaluatorError, UsageError

RUN_CONFIG_FILE = "run_config.yml"
_MAY_CHANGE = frozenset(
    {
        "config.output_dir",
        "config.params.extra.max_failed_fraction",
        "config.params.limit_samples",
        "config.params.max_retries",
        "config.params.parallelism",
        "config.params.request_timeout",
        "config.params.time_limit",
        "config.required_capabilities",
        "config.supported_endpoint_types",
        "target.api_endpoint.api_key_name",
        "target.api_endpoint.url",
    }
)
"""Settings that do not change what an answer is."""
_ADAPTER = "target.api_endpoint.adapter_config"


def refuse_other_run(output_dir: Path, document: Mapping[str, Any]) -> None:
    """Refuse to go on in a folder whose files come from other settings: its answers and scores would mix with ours.

    Args:
        output_dir: the folder of the run.
        document: the written form of the evaluation that is to run, with its fingerprint.

    Raises:
        UsageError: names each setting that differs.
        MisconfigurationError: the former `run_config.yml` is damaged.
    """
    file = output_dir / RUN_CONFIG_FILE
    if not file.exists():
        return
    former = strict_yaml.load(file)
    if not isinstance(former, Mapping):
        return
    differing = [
        *_differences(_compared(former), _compared(document)),
        *changes(former.get(FINGERPRINT), document.get(FINGERPRINT)),
    ]
    if differing:
        raise UsageError(
            f"{output_dir} holds a run with other settings, which must not mix: {'; '.join(differing)}."
            " Choose another output directory (--output_dir)"
        )


def _compared(document: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that count, by dotted key."""
    counted = {key: document.get(key) for key in ("framework_name", "config", "target")}
    plain = {
        key: value
        for key, value in _flat(counted)
        if key not in _MAY_CHANGE and not key.startswith((f"{_ADAPTER}.", f"{_ADAPTER}["))
    }
    _, adapter = look_up(document, _ADAPTER.split("."))
    return {**plain, **dict(_flat(_effects(adapter, document), _ADAPTER))}


def _effects(adapter: Any, document: Mapping[str, Any]) -> Any:
    """What of an adapter's configuration changes requests or answers, whichever form says it."""
    try:
        config = AdapterConfig.model_validate(adapter or {})
        return {
            "interceptors": _links(config),
            **{
                f"upstreams.{name}": {**_address(name, upstream, document), "interceptors": _links(upstream)}
                for name, upstream in config.upstreams.items()
                if upstream.enabled
            },
        }
    except (ValidationError, EvaluatorError):
        # Another version's, perhaps: then it has to be the same word for word.
        return adapter


def _address(name: str, upstream: UpstreamConfig, document: Mapping[str, Any]) -> dict[str, str | None]:
    """What of a judge's address counts: as the model's it may change, but one is not put in the place of another's."""
    _, extra = look_up(document, EXTRA)
    usual = usual_parameter(extra if isinstance(extra, Mapping) else None, name)
    keys = tuple(upstream.parameter.split(".")) if upstream.parameter else usual
    _, at_parameter = look_up(document, keys) if keys else (False, None)
    return {
        "url": "given" if upstream.url and upstream.url != at_parameter else None,
        "parameter": ".".join(keys) if keys and keys != usual else None,
    }


def _links(config: ChainConfig) -> dict[str, Any]:
    return {
        f"{index}.{entry.name}": _told(entry) or True
        for index, entry in enumerate(entry for entry in links(config, output_dir=".") if entry.name not in NEUTRAL)
    }


def _told(entry: InterceptorConfig) -> dict[str, Any]:
    """What a link is told beyond its defaults; where the run's files are does not matter."""
    kind = BUILT_IN.get(entry.name)
    fields = kind.parameters.model_fields if kind else {}
    return {
        key: value
        for key, value in entry.config.items()
        if key not in NEUTRAL_PARAMETERS and not (key in fields and (value is None or fields[key].default == value))
    }


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is not a mapping, with its dotted key."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{place}.{key}" if place else str(key))
    elif value is not None:
        yield place, value


def _differences(former: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*former, *now}):
        if former.get(key) != now.get(key):
            yield f"{key} was {former.get(key)!r} and is {now.get(key)!r}"
