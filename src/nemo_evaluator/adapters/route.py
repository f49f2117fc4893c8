"""One endpoint of a run together with its chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nemo_evaluator.adapters.messages import MODEL
from nemo_evaluator.adapters.registry import BUILT_IN, Kind
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.api.adapter_config import InterceptorConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where requests under one secret path go: the model under test, or a judge.

    Attributes:
        upstream: the endpoint.
        name: what statistics, records and messages call it; unique in a run.
        chain: the interceptors, as `resolve_chain` returns them.
        known: what their names mean.
        api_key_name: environment variable whose value is sent as `Authorization: Bearer …`; None to send what the
            harness sends.
        parameter: keys in the run's configuration where the harness finds the endpoint's URL; None for the model.
    """

    upstream: Upstream
    name: str = MODEL
    chain: tuple[InterceptorConfig, ...] = ()
    known: Mapping[str, Kind] = field(default_factory=lambda: BUILT_IN, repr=False)
    api_key_name: str | None = None
    parameter: tuple[str, ...] | None = None
