"""What the adapter's configuration says about the report of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator

from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.api.adapter_config import AdapterConfig
from nemo_evaluator.errors import MisconfigurationError

HOOK = "post_eval_report"
_SIZE = "html_report_size"
_FLAGS = ("generate_html_report", _SIZE, "include_json")


class PostEvalReportParameters(Parameters):
    """Parameters of the hook: which files the report consists of, and how many requests it shows."""

    report_types: tuple[Literal["html", "json"], ...] = ("html",)
    html_report_size: Annotated[int, Field(ge=0)] | None = None

    @field_validator("report_types")
    @classmethod
    def _some(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if not types:
            raise ValueError("must name html, json or both; `enabled: false` switches the report off")
        return types


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """Which files the report consists of, none to write none, and how many requests it shows; None for the usual."""

    types: tuple[Literal["html", "json"], ...] = ("html", "json")
    size: int | None = None


def report_settings(config: AdapterConfig | None) -> ReportSettings:
    """The report that `config` asks for, by the hook `post_eval_report` or by flags.

    Every run has one unless it is switched off: the report is part of a run's files, whatever its chain.

    Raises:
        MisconfigurationError: hook and flags both set it up, or two hooks do.
    """
    if config is None:
        return ReportSettings()
    hooks = [hook for hook in config.post_eval_hooks if hook.name == HOOK]
    if len(hooks) > 1:
        raise MisconfigurationError(f"adapter_config.post_eval_hooks: {HOOK!r} stands there twice; keep one of them")
    if not hooks:
        if not config.generate_html_report:
            return ReportSettings(types=())
        size = config.html_report_size if _is_size_given(config) else None
        return ReportSettings(types=("html", "json") if config.include_json else ("html",), size=size)
    changed = [name for name in _FLAGS if config.was_changed(name) or (name == _SIZE and _is_size_given(config))]
    if changed:
        raise MisconfigurationError(
            f"adapter_config: {', '.join(changed)} and the hook {HOOK!r} both set up the report; keep one of them"
        )
    (hook,) = hooks
    if not hook.enabled:
        return ReportSettings(types=())
    parameters = PostEvalReportParameters.model_validate(hook.config)
    return ReportSettings(types=parameters.report_types, size=parameters.html_report_size)


def report_notices(config: AdapterConfig) -> list[str]:
    """Settings of the report that were given although there is none."""
    if config.generate_html_report:
        return []
    given = [_SIZE] * _is_size_given(config) + ["include_json"] * ("include_json" in config.model_fields_set)
    return [f"adapter_config: {name} has no effect, because generate_html_report is false" for name in given]


def _is_size_given(config: AdapterConfig) -> bool:
    """Whether a user said how many requests the report shows, be it as many as by default."""
    return _SIZE in config.model_fields_set or config.was_changed(_SIZE)
