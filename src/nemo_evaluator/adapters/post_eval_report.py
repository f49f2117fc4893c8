"""What the adapter's configuration says about the report of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.api.adapter_config import AdapterConfig
from nemo_evaluator.errors import MisconfigurationError

HOOK = "post_eval_report"
_FLAGS = ("generate_html_report", "html_report_size", "include_json")


class PostEvalReportParameters(Parameters):
    """Parameters of the hook: which files the report consists of, and how many requests it shows."""

    report_types: tuple[Literal["html", "json"], ...] = ("html",)
    html_report_size: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """Which files the report consists of, none to write none, and how many requests it shows; None for the usual."""

    types: tuple[Literal["html", "json"], ...] = ("html", "json")
    size: int | None = None


def report_settings(config: AdapterConfig | None) -> ReportSettings:
    """The report that `config` asks for, by the hook `post_eval_report` or by flags.

    Every run has one unless it is switched off: the report is part of a run's files, whatever its chain.

    Raises:
        MisconfigurationError: hook and flags both set it up.
    """
    if config is None:
        return ReportSettings()
    hook = next((hook for hook in config.post_eval_hooks if hook.name == HOOK), None)
    if hook is None:
        if not config.generate_html_report:
            return ReportSettings(types=())
        size = config.html_report_size if config.was_changed("html_report_size") else None
        return ReportSettings(types=("html", "json") if config.include_json else ("html",), size=size)
    changed = [name for name in _FLAGS if config.was_changed(name)]
    if changed:
        raise MisconfigurationError(
            f"adapter_config: {', '.join(changed)} and the hook {HOOK!r} both set up the report; keep one of them"
        )
    if not hook.enabled:
        return ReportSettings(types=())
    parameters = PostEvalReportParameters.model_validate(hook.config)
    return ReportSettings(types=parameters.report_types, size=parameters.html_report_size)
