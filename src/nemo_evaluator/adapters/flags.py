"""The flag form of the adapter configuration, written as the list form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_evaluator.adapters.registry import BUILT_IN
from nemo_evaluator.adapters.switches import SWITCHES
from nemo_evaluator.api.adapter_config import AdapterConfig, ChainConfig, InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FlagGroup:
    """The flags of one interceptor.

    `switch` turns it on, `settings` are its parameters; `parameters` computes those from the flags and the folder of
    the run, and returns None when the interceptor stays off.
    """

    switch: str | None
    settings: tuple[str, ...]
    parameters: Callable[[ChainConfig, Path], Config | None]

    @property
    def names(self) -> tuple[str, ...]:
        """All flags of the group."""
        return self.settings if self.switch is None else (self.switch, *self.settings)

    def changed(self, config: ChainConfig) -> list[str]:
        """Those of its flags that differ from their defaults.

        A key that holds parameters counts when it was given at all: beside a list, `retry: true` switches it on.
        """
        given = config.model_fields_set if self.switch in SWITCHES else frozenset[str]()
        return [name for name in self.names if config.was_changed(name) or name in given]

    def given(self, config: ChainConfig) -> list[str]:
        """Those that differ from their defaults, and the switch when it was given, be it as it is by default."""
        switched = self.switch is not None and self.switch in config.model_fields_set
        changed = self.changed(config)
        return [name for name in self.names if name in changed or (switched and name == self.switch)]


def _only_set(**parameters: Any) -> Config:
    return {name: value for name, value in parameters.items() if value is not None}


def _system_message(config: ChainConfig, _folder: Path) -> Config | None:
    if not config.use_system_prompt:
        return None
    if config.custom_system_prompt is None:
        raise MisconfigurationError("adapter_config: use_system_prompt is on, but custom_system_prompt is not given")
    return {"system_message": config.custom_system_prompt}


def _payload_modifier(config: ChainConfig, _folder: Path) -> Config | None:
    given = {name: getattr(config, name) for name in PAYLOAD_FLAGS}
    return {name: value for name, value in given.items() if value} or None


def _request_logging(config: ChainConfig, _folder: Path) -> Config | None:
    return _only_set(max_requests=config.max_logged_requests) if config.use_request_logging else None


def _response_logging(config: ChainConfig, _folder: Path) -> Config | None:
    return _only_set(max_responses=config.max_logged_responses) if config.use_response_logging else None


def _caching(config: ChainConfig, folder: Path) -> Config | None:
    if not config.use_caching:
        return None
    # The report is about all requests of the run, those to judges too.
    report = not isinstance(config, AdapterConfig) or config.generate_html_report
    least = config.html_report_size if report and isinstance(config, AdapterConfig) else 0
    return {
        "cache_dir": config.caching_dir or str(folder / "cache"),
        "reuse_cached_responses": True,
        "save_requests": config.save_requests or report,
        "save_responses": True,
        **_only_set(
            max_saved_requests=max(config.max_saved_requests or 0, least) or None,
            max_saved_responses=config.max_saved_responses and max(config.max_saved_responses, least),
            seed_cache_dir=config.seed_cache_dir,
        ),
    }


def _response_stats(config: ChainConfig, folder: Path) -> Config | None:
    if not config.tracking_requests_stats:
        return None
    return {
        "cache_dir": str(Path(config.caching_dir or folder) / "response_stats_cache"),
        "logging_aggregated_stats_interval": config.logging_aggregated_stats_interval,
    }


def _reasoning(config: ChainConfig, folder: Path) -> Config | None:
    if not config.process_reasoning_traces:
        return None
    return {
        "end_reasoning_token": config.end_reasoning_token,
        "cache_dir": str(Path(config.caching_dir or folder) / "reasoning_stats_cache"),
        "logging_aggregated_stats_interval": config.logging_aggregated_stats_interval,
        **_only_set(
            start_reasoning_token=config.start_reasoning_token,
            include_if_not_finished=config.include_if_reasoning_not_finished,
            enable_reasoning_tracking=config.track_reasoning,
        ),
    }


def _progress_tracking(config: ChainConfig, folder: Path) -> Config | None:
    if not config.use_progress_tracking:
        return None
    return {
        "progress_tracking_interval": config.progress_tracking_interval,
        "request_method": "POST",
        "output_dir": str(folder),
        **_only_set(progress_tracking_url=config.progress_tracking_url),
    }


def _raise_client_errors(config: ChainConfig, _folder: Path) -> Config | None:
    return {} if config.use_raise_client_errors else None


def _failed_request_logging(config: ChainConfig, _folder: Path) -> Config | None:
    return {} if config.log_failed_requests else None


def _switched(name: str, *, items: str | None = None) -> FlagGroup:
    """The group of a key that holds true, false, the parameters, or a list that is its parameter `items`."""

    def parameters(config: ChainConfig, _folder: Path) -> Config | None:
        value = getattr(config, name)
        if value is False:
            return None
        if items is not None and isinstance(value, list):
            return {items: value}
        return dict(value) if isinstance(value, dict) else {}

    return FlagGroup(name, (), parameters)


PAYLOAD_FLAGS = (
    "params_to_add",
    "params_to_remove",
    "params_to_rename",
    "headers_to_add",
    "headers_to_remove",
    "headers_to_rename",
)

GROUPS: dict[str, FlagGroup] = {
    "system_message": FlagGroup("use_system_prompt", ("custom_system_prompt",), _system_message),
    "payload_modifier": FlagGroup(None, PAYLOAD_FLAGS, _payload_modifier),
    "request_logging": FlagGroup("use_request_logging", ("max_logged_requests",), _request_logging),
    "caching": FlagGroup(
        "use_caching",
        (
            "caching_dir",
            "seed_cache_dir",
            "save_requests",
            "save_responses",
            "max_saved_requests",
            "max_saved_responses",
        ),
        _caching,
    ),
    "response_stats": FlagGroup("tracking_requests_stats", ("logging_aggregated_stats_interval",), _response_stats),
    "response_logging": FlagGroup("use_response_logging", ("max_logged_responses",), _response_logging),
    "reasoning": FlagGroup(
        "process_reasoning_traces",
        ("end_reasoning_token", "start_reasoning_token", "include_if_reasoning_not_finished", "track_reasoning"),
        _reasoning,
    ),
    "progress_tracking": FlagGroup(
        "use_progress_tracking", ("progress_tracking_url", "progress_tracking_interval"), _progress_tracking
    ),
    "raise_client_errors": FlagGroup("use_raise_client_errors", (), _raise_client_errors),
    "failed_request_logging": FlagGroup("log_failed_requests", (), _failed_request_logging),
    **{name: _switched(name, items="params" if name == "drop_params" else None) for name in SWITCHES},
}


def entries(config: ChainConfig, *, output_dir: Path, only_given: bool = False) -> dict[str, InterceptorConfig]:
    """The entries that the flags of `config` stand for, by name, in order, without the endpoint.

    Args:
        config: the configuration.
        output_dir: the folder of the run; `config.output_dir` comes second.
        only_given: leave out what is on by default only.

    Raises:
        MisconfigurationError: flags that need each other are not all given.
    """
    found = {}
    # In the order of the generated chain.
    for name in (name for name in BUILT_IN if name in GROUPS):
        group = GROUPS[name]
        if only_given and not group.given(config):
            continue
        parameters = group.parameters(config, output_dir)
        if parameters is not None:
            found[name] = InterceptorConfig(name=name, config=parameters)
    return found
