"""Configuration of the adapter proxy, in the list form and in the flag form of the compatible interface.

`nemo_evaluator.adapters.chain.resolve_chain` turns both into one chain of interceptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from nemo_evaluator.shell import is_variable_name
from nemo_evaluator.suggest import did_you_mean

Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
HeaderValue = Annotated[str, Field(pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*$")]


def _check_switch(value: Any) -> Any:
    if isinstance(value, bool | dict):
        return value
    raise ValueError("must be true, false or a mapping of parameters")


def _check_switch_or_list(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, bool | dict):
        return value
    raise ValueError("must be true, false, a list of names or a mapping of parameters")


Switch = Annotated[bool | dict[str, Any], BeforeValidator(_check_switch)]
"""Off or on, or on with parameters."""
SwitchOrList = Annotated[bool | list[str] | dict[str, Any], BeforeValidator(_check_switch_or_list)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Folders = Annotated[list[str], BeforeValidator(_as_list)]


class _Strict(BaseModel):
    """A model that refuses unknown keys and suggests the nearest. A null stands for the default."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = cls._known_keys()
        unknown = next((str(key) for key in data if key not in known), None)
        if unknown is not None:
            raise ValueError(f"unknown key {unknown!r}.{did_you_mean(unknown, known)} Known: {', '.join(known)}")
        # A null stands for the default, in every layer of a configuration.
        return {key: value for key, value in data.items() if value is not None}

    if not TYPE_CHECKING:  # with it, mypy would let any attribute be set

        def __setattr__(self, name: str, value: Any) -> None:
            fields = type(self).model_fields
            field = fields.get(name)
            is_reset = value is None and field is not None and not field.is_required()
            super().__setattr__(name, field.get_default(call_default_factory=True) if is_reset else value)
            if is_reset:
                self.model_fields_set.discard(name)
            # Validation sees all fields at each assignment, and drops the nulls among them.
            for other, info in fields.items():
                if other not in self.__dict__:
                    self.__dict__[other] = info.get_default(call_default_factory=True)

    @classmethod
    def _known_keys(cls) -> tuple[str, ...]:
        return tuple(cls.model_fields)


class InterceptorConfig(_Strict):
    """One interceptor of the chain: its name, whether it is on, and its parameters."""

    name: str
    enabled: bool = True
    # pydantic copies such defaults; `default_factory=dict` would cost each start the reading of dict's signature.
    config: dict[str, Any] = {}


class PostEvalHookConfig(InterceptorConfig):
    """One hook that runs after the evaluation."""


class DiscoveryConfig(_Strict):
    """Where third-party interceptors are looked for."""

    modules: list[str] = []
    dirs: list[str] = []


class ChainConfig(_Strict):
    """How requests to one endpoint, and its answers, are treated: the keys that hold for the model and for judges.

    Of the flag form, `retry`, `concurrency`, `finish_reason`, `trace`, `budget`, `drop_params`, `modify_tools`,
    `turn_counter` and `headers` switch the interceptor of that name: `true`, `false`, or a mapping of its parameters.

    Only what was set is written when it is dumped, so that a dumped configuration means the same when read again.
    `use_reasoning` is the older name of `process_reasoning_traces`.
    """

    interceptors: list[InterceptorConfig] = []
    log_failed_requests: bool = False

    use_caching: bool = True
    caching_dir: str | None = None
    seed_cache_dir: Folders | None = None
    """Folders of other runs' stores, from which answers are taken too; nothing is written there."""
    save_requests: bool = False
    save_responses: bool = False
    max_saved_requests: Count | None = None
    max_saved_responses: Count | None = None
    tracking_requests_stats: bool = True
    logging_aggregated_stats_interval: PositiveCount = 100

    use_system_prompt: bool = False
    custom_system_prompt: str | None = None

    params_to_add: dict[str, Any] | None = None
    params_to_remove: list[str] | None = None
    params_to_rename: dict[str, str] | None = None
    headers_to_add: dict[str, HeaderValue] | None = None
    headers_to_remove: list[str] | None = None
    headers_to_rename: dict[str, str] | None = None

    use_request_logging: bool = False
    max_logged_requests: Count | None = None
    use_response_logging: bool = False
    max_logged_responses: Count | None = None

    process_reasoning_traces: bool = False
    end_reasoning_token: str = "</think>"  # noqa: S105  a mark in the model's text
    start_reasoning_token: str | None = None
    include_if_reasoning_not_finished: bool | None = None
    track_reasoning: bool | None = None

    use_progress_tracking: bool = False
    progress_tracking_url: str | None = None
    progress_tracking_interval: PositiveCount = 1

    use_raise_client_errors: bool = False
    use_omni_info: bool = False
    use_nvcf: bool = False

    retry: Switch = True
    concurrency: Switch = True
    finish_reason: Switch = True
    trace: Switch = False
    budget: Switch = False
    drop_params: SwitchOrList = False
    modify_tools: Switch = False
    turn_counter: Switch = False
    headers: Switch = False

    @model_validator(mode="before")
    @classmethod
    def _use_reasoning_is_process_reasoning_traces(cls, data: Any) -> Any:
        if isinstance(data, dict) and "use_reasoning" in data:
            data = dict(data)
            value = data.pop("use_reasoning")
            if data.setdefault("process_reasoning_traces", value) != value:
                raise ValueError("use_reasoning and process_reasoning_traces are one setting and differ: give only one")
        return data

    @field_validator("interceptors", "post_eval_hooks", mode="before", check_fields=False)
    @classmethod
    def _names_are_interceptors(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{"name": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("upstreams", mode="before", check_fields=False)
    @classmethod
    def _null_is_no_upstream(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: upstream for name, upstream in value.items() if upstream is not None}
        return value

    @field_validator("headers_to_add", mode="before")
    @classmethod
    def _numbers_are_header_values(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item
                for name, item in value.items()
            }
        return value

    @model_serializer(mode="wrap")
    def _only_what_was_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        return {key: value for key, value in dumped.items() if key in self.model_fields_set or self.was_changed(key)}

    @classmethod
    def _known_keys(cls) -> tuple[str, ...]:
        return (*cls.model_fields, "use_reasoning")

    @property
    def use_reasoning(self) -> bool:
        """The older name of `process_reasoning_traces`."""
        return self.process_reasoning_traces

    @use_reasoning.setter
    def use_reasoning(self, value: bool) -> None:
        self.process_reasoning_traces = value

    def was_changed(self, name: str) -> bool:
        """Whether the field `name` differs from its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True))


class UpstreamConfig(ChainConfig):
    """A further endpoint behind the proxy, such as a judge, with a chain of its own.

    Attributes:
        url: where it is; may be left out when `parameter` says it.
        parameter: dotted path in the run's configuration, such as `config.params.extra.judge.url`, whose value the
            harness takes for the endpoint's URL: in its command, the proxy's stands there.
        api_key_name: environment variable whose value the proxy sends as the key; None to send what the harness sends.
        request_timeout: longest silence of the endpoint while it owes an answer, in seconds.
        enabled: false leaves it out: the harness asks the endpoint itself. `false` alone stands for that.
    """

    enabled: bool = True
    url: str | None = None
    parameter: str | None = None
    api_key_name: str | None = None
    request_timeout: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _false_is_off(cls, data: Any) -> Any:
        if isinstance(data, bool):
            return {} if data else {"enabled": False}
        return data

    @field_validator("api_key_name")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not is_variable_name(value):
            # The value may be a key that was put in the wrong place: it is not repeated.
            raise ValueError("must be the name of an environment variable (letters, digits, _), not a key itself")
        return value


class AdapterConfig(ChainConfig):
    """How requests and answers are treated between the harness and its endpoints.

    Fields may be set at construction or later, attribute by attribute. In the list form `interceptors` names the chain,
    in the order that requests pass through it. In the flag form (no `interceptors`) `use_…` and its relatives switch
    interceptors on, in a fixed order. Both may be mixed where no interceptor is meant twice.
    """

    mode: Literal["server", "client"] = "server"
    discovery: DiscoveryConfig = DiscoveryConfig()
    post_eval_hooks: list[PostEvalHookConfig] = []
    endpoint_type: str = "chat"

    api_url: str | None = None
    """The endpoint's URL in the oldest form; it may repeat `target.api_endpoint.url`, or stand in for it."""
    output_dir: str | None = None

    generate_html_report: bool = True
    html_report_size: Count = 5
    include_json: bool = True

    upstreams: dict[str, UpstreamConfig] = {}
    """Further endpoints by name: judges whose URL stands in one of the usual parameters, and all that are told."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port on loopback for Prometheus metrics of the run; 0 lets the kernel choose one."""
