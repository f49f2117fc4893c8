"""The interceptors and hooks that exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import Interceptor, NamedInterceptor
from nemo_evaluator.adapters.interceptors.budget import Budget, BudgetParameters
from nemo_evaluator.adapters.interceptors.caching import Caching, CachingParameters
from nemo_evaluator.adapters.interceptors.concurrency import Concurrency, ConcurrencyParameters
from nemo_evaluator.adapters.interceptors.drop_params import DropParams, DropParamsParameters
from nemo_evaluator.adapters.interceptors.finish_reason import FinishReason, FinishReasonParameters
from nemo_evaluator.adapters.interceptors.headers import Headers, HeadersParameters
from nemo_evaluator.adapters.interceptors.modify_tools import ModifyTools, ModifyToolsParameters
from nemo_evaluator.adapters.interceptors.payload_modifier import PayloadModifier, PayloadModifierParameters
from nemo_evaluator.adapters.interceptors.progress_tracking import ProgressTracking, ProgressTrackingParameters
from nemo_evaluator.adapters.interceptors.raise_client_errors import RaiseClientErrors, RaiseClientErrorsParameters
from nemo_evaluator.adapters.interceptors.reasoning import Reasoning, ReasoningParameters
from nemo_evaluator.adapters.interceptors.request_logging import RequestLogging, RequestLoggingParameters
from nemo_evaluator.adapters.interceptors.response_logging import (
    FailedRequestLogging,
    FailedRequestLoggingParameters,
    ResponseLogging,
    ResponseLoggingParameters,
)
from nemo_evaluator.adapters.interceptors.response_stats import ResponseStats, ResponseStatsParameters
from nemo_evaluator.adapters.interceptors.retry import Retry, RetryParameters
from nemo_evaluator.adapters.interceptors.system_message import SystemMessage, SystemMessageParameters
from nemo_evaluator.adapters.interceptors.trace import Trace, TraceParameters
from nemo_evaluator.adapters.interceptors.turn_counter import TurnCounter, TurnCounterParameters
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.post_eval_report import PostEvalReportParameters
from nemo_evaluator.adapters.registration import STAGES, Stage
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError
from nemo_evaluator.suggest import did_you_mean

ENDPOINT = "endpoint"


@dataclass(frozen=True, slots=True)
class Kind:
    """An interceptor's parameters, what makes it, and where it stands.

    `make` is None for those that are no links of their own: the endpoint, and hooks.
    """

    parameters: type[BaseModel]
    make: Callable[[Any, Context], Interceptor] | None = None
    stage: Stage = "harness"


@dataclass(frozen=True, slots=True)
class BuiltIn(Kind):
    """An interceptor that every installation has."""


def _plain(make: Callable[[Any], Interceptor]) -> Callable[[Any, Context], Interceptor]:
    """For interceptors that need nothing but their parameters."""
    return lambda parameters, _context: make(parameters)


# In the order in which the flag form switches them on.
BUILT_IN: dict[str, BuiltIn] = {
    "failed_request_logging": BuiltIn(FailedRequestLoggingParameters, FailedRequestLogging),
    "system_message": BuiltIn(SystemMessageParameters, _plain(SystemMessage)),
    "payload_modifier": BuiltIn(PayloadModifierParameters, PayloadModifier),
    "modify_tools": BuiltIn(ModifyToolsParameters, _plain(ModifyTools)),
    "headers": BuiltIn(HeadersParameters, Headers),
    "request_logging": BuiltIn(RequestLoggingParameters, RequestLogging),
    "caching": BuiltIn(CachingParameters, Caching, stage="store"),
    "response_stats": BuiltIn(ResponseStatsParameters, ResponseStats),
    "finish_reason": BuiltIn(FinishReasonParameters, lambda _parameters, context: FinishReason(context)),
    "response_logging": BuiltIn(ResponseLoggingParameters, ResponseLogging),
    "reasoning": BuiltIn(ReasoningParameters, Reasoning),
    "progress_tracking": BuiltIn(ProgressTrackingParameters, ProgressTracking),
    "raise_client_errors": BuiltIn(RaiseClientErrorsParameters, RaiseClientErrors),
    "turn_counter": BuiltIn(TurnCounterParameters, TurnCounter),
    "drop_params": BuiltIn(DropParamsParameters, DropParams),
    "retry": BuiltIn(RetryParameters, Retry, stage="transport"),
    "concurrency": BuiltIn(ConcurrencyParameters, Concurrency, stage="transport"),
    "budget": BuiltIn(BudgetParameters, Budget, stage="transport"),
    "trace": BuiltIn(TraceParameters, Trace, stage="transport"),
    ENDPOINT: BuiltIn(Parameters),
}

HOOKS: dict[str, BuiltIn] = {"post_eval_report": BuiltIn(PostEvalReportParameters)}

NOT_PUBLIC = ("nvcf", "omni_info")


def check(entry: InterceptorConfig, *, place: str, known: Mapping[str, Kind]) -> BaseModel:
    """The parameters of `entry`, validated.

    Args:
        entry: an entry of a chain or of the hooks.
        place: what to call it in errors, such as `interceptors[2]`.
        known: all interceptors, or all hooks.

    Raises:
        MisconfigurationError: nothing has that name, or a parameter is unknown, missing or wrong.
    """
    if entry.name in NOT_PUBLIC:
        raise MisconfigurationError(f"{place}: {entry.name!r} is not part of the public interface; remove it")
    if entry.name not in known:
        raise MisconfigurationError(
            f"{place}: there is no {entry.name!r}.{did_you_mean(entry.name, known)} Known: {', '.join(known)}"
        )
    kind = known[entry.name].parameters
    parameters = [name for field, info in kind.model_fields.items() for name in (field, info.alias) if name]
    for name in entry.config:
        if name not in parameters and kind.model_config.get("extra") != "allow":
            raise MisconfigurationError(
                f"{place}: {entry.name!r} has no parameter {name!r}.{did_you_mean(name, parameters)} "
                f"Known: {', '.join(parameters) or 'none'}"
            )
    try:
        return kind.model_validate(entry.config)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        parameter = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise MisconfigurationError(
            f"{place}: {entry.name!r}: {f'parameter {parameter!r}: ' if parameter else ''}{text}"
        ) from None


def build(
    chain: Iterable[InterceptorConfig], context: Context, *, known: Mapping[str, Kind] = BUILT_IN
) -> dict[Stage, list[NamedInterceptor]]:
    """The interceptors of `chain` that are links of their own, by stage, outermost first.

    Raises:
        MisconfigurationError: as `check`.
    """
    links: dict[Stage, list[NamedInterceptor]] = {stage: [] for stage in STAGES}
    for index, entry in enumerate(chain):
        parameters = check(entry, place=f"interceptors[{index}]", known=known)
        kind = known[entry.name]
        if entry.enabled and kind.make is not None:
            links[kind.stage].append(NamedInterceptor(entry.name, kind.make(parameters, context)))
    return links
