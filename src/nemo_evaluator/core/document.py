"""The written form of an evaluation: plain data without secrets, for files, `--dry_run` and logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nemo_evaluator.adapters.judges import judge_parameters
from nemo_evaluator.adapters.redaction import redact, redact_url
from nemo_evaluator.api.api_dataclasses import Evaluation
from nemo_evaluator.core.layers import look_up
from nemo_evaluator.core.render import render_command

KEYS = ("command", "framework_name", "pkg_name", "config", "target")


def document(evaluation: Evaluation) -> dict[str, Any]:
    """`evaluation` as plain data in the compatible order of keys; secrets in URLs and headers are replaced."""
    dumped = evaluation.model_dump(mode="json")
    endpoint = evaluation.target.api_endpoint
    if endpoint is not None:
        written = dumped["target"]["api_endpoint"]
        if endpoint.url is not None:
            written["url"] = redact_url(endpoint.url)
        if endpoint.adapter_config is not None:
            written["adapter_config"] = redact(endpoint.adapter_config).model_dump(mode="json")
    for keys in _url_parameters(evaluation):
        found, section = look_up(dumped, keys[:-1])
        if found and isinstance(section.get(keys[-1]), str):
            section[keys[-1]] = redact_url(section[keys[-1]])
    return {key: dumped[key] for key in KEYS}


def written_command(evaluation: Evaluation, written: Mapping[str, Any], *, url: str | None = None) -> str:
    """The command with the URLs that the user gave, as far as they may be shown.

    Args:
        evaluation: the resolved evaluation.
        written: its written form.
        url: stands for the model's URL; None for the one that the user gave.

    Raises:
        MisconfigurationError: as `render_command`.
    """
    found = {keys: look_up(written, keys) for keys in _url_parameters(evaluation)}
    return render_command(
        evaluation,
        url=url or written["target"]["api_endpoint"]["url"],
        replaced={keys: value for keys, (is_there, value) in found.items() if is_there},
    )


def _url_parameters(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """The keys of parameters that hold URLs of judges."""
    params, endpoint = evaluation.config.params, evaluation.target.api_endpoint
    yield from judge_parameters(params.extra if params else None).values()
    adapter = endpoint.adapter_config if endpoint else None
    for upstream in adapter.upstreams.values() if adapter else ():
        if upstream.parameter:
            yield tuple(upstream.parameter.split("."))
