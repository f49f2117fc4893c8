from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nemo_evaluator.adapters.chain import check_api_url, check_endpoint_type, notices, resolve_chain
from nemo_evaluator.adapters.registry import BUILT_IN, check
from nemo_evaluator.api.adapter_config import AdapterConfig, InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError

RUN = Path("/results/run")


def _config(**values: Any) -> AdapterConfig:
    return AdapterConfig.model_validate(values)


def _chain(**values: Any) -> tuple[InterceptorConfig, ...]:
    return resolve_chain(_config(**values), output_dir=RUN)


def _names(**values: Any) -> list[str]:
    return [entry.name for entry in _chain(**values)]


def test_without_a_configuration_the_defaults_of_the_flag_form_count() -> None:
    assert resolve_chain(None, output_dir=RUN) == _chain()
    assert _names() == ["response_stats", "finish_reason", "caching", "retry", "concurrency", "endpoint"]
    caching = _chain()[2]
    assert caching.config == {
        "cache_dir": "/results/run/cache",
        "reuse_cached_responses": True,
        "save_requests": True,
        "save_responses": True,
        "max_saved_requests": 5,
    }


def test_the_flags_make_the_compatible_order_within_each_stage() -> None:
    names = _names(
        log_failed_requests=True,
        modify_tools={"remove": ["search"]},
        headers={"from_env": {"X-Key": "KEY"}},
        turn_counter=True,
        drop_params=["seed"],
        budget={"max_requests": 5},
        use_raise_client_errors=True,
        use_progress_tracking=True,
        process_reasoning_traces=True,
        use_response_logging=True,
        use_request_logging=True,
        params_to_add={"a": 1},
        use_system_prompt=True,
        custom_system_prompt="Be brief.",
    )
    assert names == [
        "failed_request_logging",
        "system_message",
        "payload_modifier",
        "modify_tools",
        "headers",
        "request_logging",
        "response_stats",
        "finish_reason",
        "response_logging",
        "reasoning",
        "progress_tracking",
        "raise_client_errors",
        "turn_counter",
        "drop_params",
        "caching",
        "retry",
        "concurrency",
        "budget",
        "endpoint",
    ]


@pytest.mark.parametrize(
    ("flags", "name", "expected"),
    [
        (
            {"use_system_prompt": True, "custom_system_prompt": "Be brief."},
            "system_message",
            {"system_message": "Be brief."},
        ),
        (
            {"params_to_remove": ["seed"], "headers_to_add": {"X-A": 1}, "params_to_add": {}},
            "payload_modifier",
            {"params_to_remove": ["seed"], "headers_to_add": {"X-A": "1"}},
        ),
        ({"use_request_logging": True, "max_logged_requests": 3}, "request_logging", {"max_requests": 3}),
        ({"use_request_logging": True}, "request_logging", {}),
        ({"use_response_logging": True, "max_logged_responses": 3}, "response_logging", {"max_responses": 3}),
        (
            {"caching_dir": "/c", "max_saved_requests": 9, "max_saved_responses": 2, "generate_html_report": False},
            "caching",
            {
                "cache_dir": "/c",
                "reuse_cached_responses": True,
                "save_requests": False,
                "save_responses": True,
                "max_saved_requests": 9,
                "max_saved_responses": 2,
            },
        ),
        (
            {"use_reasoning": True, "include_if_reasoning_not_finished": False, "caching_dir": "/c"},
            "reasoning",
            {
                "end_reasoning_token": "</think>",
                "include_if_not_finished": False,
                "cache_dir": "/c/reasoning_stats_cache",
                "logging_aggregated_stats_interval": 100,
            },
        ),
        (
            {"use_progress_tracking": True, "progress_tracking_url": "http://x/", "progress_tracking_interval": 7},
            "progress_tracking",
            {
                "progress_tracking_url": "http://x/",
                "progress_tracking_interval": 7,
                "request_method": "POST",
                "output_dir": "/results/run",
            },
        ),
        ({"use_raise_client_errors": True}, "raise_client_errors", {}),
    ],
)
def test_flags_become_parameters(flags: dict[str, Any], name: str, expected: dict[str, Any]) -> None:
    assert next(entry.config for entry in _chain(**flags) if entry.name == name) == expected


def test_what_is_switched_off_is_not_there() -> None:
    off: dict[str, Any] = dict.fromkeys(
        ("use_caching", "tracking_requests_stats", "retry", "concurrency", "finish_reason"), False
    )
    assert _names(**off) == ["endpoint"]


@pytest.mark.parametrize(
    ("flags", "name", "expected"),
    [
        ({"retry": {"max_attempts": 5}}, "retry", {"max_attempts": 5}),
        ({"retry": True}, "retry", {}),
        ({"drop_params": ["seed", "top_k"]}, "drop_params", {"params": ["seed", "top_k"]}),
        ({"drop_params": {"params": ["seed"]}}, "drop_params", {"params": ["seed"]}),
        ({"seed_cache_dir": "/other"}, "caching", {"seed_cache_dir": ["/other"]}),
    ],
)
def test_a_key_of_its_own_name_holds_an_interceptor_s_parameters(
    flags: dict[str, Any], name: str, expected: dict[str, Any]
) -> None:
    (config,) = [entry.config for entry in _chain(**flags) if entry.name == name]
    assert config.items() >= expected.items()


def test_beside_a_list_a_key_that_is_given_adds_its_interceptor() -> None:
    assert _names(interceptors=["reasoning"], retry=True) == ["reasoning", "retry", "endpoint"]
    assert _names(interceptors=["reasoning"], retry=False) == ["reasoning", "endpoint"]
    assert _names(interceptors=["caching", "concurrency"], retry={"max_attempts": 2})[:2] == ["caching", "retry"]
    # Also where it repeats the default, which holds without a list only.
    assert _names(interceptors=["reasoning"], use_caching=True) == ["reasoning", "caching", "endpoint"]
    assert _names(interceptors=["reasoning"], tracking_requests_stats=True) == [
        "response_stats",
        "reasoning",
        "endpoint",
    ]
    assert _names(interceptors=["caching"], use_caching=True) == ["caching", "endpoint"]


@pytest.mark.parametrize(
    "entry", [{"name": "caching", "config": {"cache_dir": None}}, {"name": "retry", "config": {"max_attempts": None}}]
)
def test_a_parameter_that_is_null_stands_for_its_default(entry: dict[str, Any]) -> None:
    kind = BUILT_IN[entry["name"]]
    (listed, _) = _chain(interceptors=[entry])
    assert check(listed, place="", known=BUILT_IN) == kind.parameters()


def test_failed_requests_are_logged_beside_any_list() -> None:
    listed = ["reasoning", "request_logging", "payload_modifier"]
    assert _names(interceptors=listed, log_failed_requests=True) == ["failed_request_logging", *listed, "endpoint"]


def test_the_list_form_keeps_its_order_and_gets_its_endpoint() -> None:
    assert _names(interceptors=["request_logging", "caching"]) == ["request_logging", "caching", "endpoint"]
    # Behind the endpoint stand those that change answers: the last of them is the nearest to it.
    listed = ["caching", "endpoint", "response_stats", "reasoning"]
    assert _names(interceptors=listed) == ["response_stats", "reasoning", "caching", "endpoint"]
    off = {"name": "reasoning", "enabled": False}
    assert _names(interceptors=["caching", off]) == ["caching", "endpoint"]


def test_the_forms_may_be_mixed_where_it_is_clear_what_is_meant() -> None:
    mixed: dict[str, Any] = {
        "interceptors": ["payload_modifier", "reasoning"],
        "use_system_prompt": True,
        "custom_system_prompt": "Be brief.",
        "use_request_logging": True,
    }
    assert _names(**mixed) == ["system_message", "payload_modifier", "request_logging", "reasoning", "endpoint"]
    # Off is off.
    assert _names(interceptors=["reasoning"], use_caching=False, use_system_prompt=False) == ["reasoning", "endpoint"]


def test_a_written_configuration_resolves_to_the_same_chain() -> None:
    config = _config(interceptors=["reasoning"], use_request_logging=True, use_caching=True)
    again = AdapterConfig.model_validate(config.model_dump(mode="json"))
    assert resolve_chain(again, output_dir=RUN) == resolve_chain(config, output_dir=RUN)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"interceptors": ["cachin"]}, r"interceptors\[0\]: there is no 'cachin'. Did you mean 'caching'\? Known: "),
        ({"post_eval_hooks": ["report"]}, r"post_eval_hooks\[0\]: there is no 'report'.*Known: post_eval_report"),
        (
            {"interceptors": ["caching", {"name": "reasoning", "config": {"end_token": "x"}}]},
            r"interceptors\[1\]: 'reasoning' has no parameter 'end_token'.*Known: .*end_reasoning_token",
        ),
        ({"interceptors": ["system_message"]}, r"'system_message': parameter 'system_message': Field required"),
        (
            {"interceptors": [{"name": "system_message", "config": {"system_message": "x", "strategy": "before"}}]},
            r"parameter 'strategy': .*'prepend', 'append' or 'replace'",
        ),
        ({"interceptors": [{"name": "caching", "enabled": False, "config": {"x": 1}}]}, "has no parameter 'x'"),
        ({"use_nvcf": True}, r"use_nvcf: .* not part of the public interface"),
        ({"use_omni_info": True}, r"use_omni_info: .* not part of the public interface"),
        ({"interceptors": ["nvcf"]}, r"interceptors\[0\]: 'nvcf' is not part of the public interface"),
        ({"budget": {"max_request": 1}}, r"'budget' has no parameter 'max_request'. Did you mean 'max_requests'"),
        (
            {"interceptors": ["retry"], "retry": {"max_attempts": 2}},
            r"retry and the entry 'retry' of interceptors both",
        ),
        ({"use_system_prompt": True}, "custom_system_prompt is not given"),
        ({"interceptors": ["endpoint", "endpoint"]}, "stand there once"),
        ({"interceptors": ["caching", "reasoning", "caching"]}, r"interceptors: 'caching' stands there twice"),
        ({"interceptors": [{"name": "endpoint", "enabled": False}]}, "must be enabled"),
        ({"interceptors": [{"name": "endpoint", "config": {"timeout": 1}}]}, "'endpoint' has no parameter 'timeout'"),
        (
            {"interceptors": ["caching"], "use_caching": False},
            r"use_caching and the entry 'caching' of interceptors both",
        ),
        (
            {"interceptors": ["reasoning"], "end_reasoning_token": "x", "use_reasoning": True},
            r"process_reasoning_traces, end_reasoning_token and the entry 'reasoning'",
        ),
        (
            {"interceptors": ["reasoning", "request_logging"], "params_to_add": {"a": 1}, "use_raise_client_errors": 1},
            None,
        ),
        (
            {"interceptors": ["reasoning", "request_logging"], "use_response_logging": True},
            r"where 'response_logging', switched on by use_response_logging, .* is not clear",
        ),
        ({"headers_to_add": {"X-Key": "<redacted>"}}, r"the value of 'X-Key' was hidden .* give it again"),
        ({"headers_to_add": {"X Key": "1"}}, "headers_to_add"),
        ({"use_reasoning": True, "start_reasoning_token": ""}, "parameter 'start_reasoning_token'"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_starts(values: dict[str, Any], message: str | None) -> None:
    config = _config(**values)
    if message is None:
        assert resolve_chain(config, output_dir=RUN)
        return
    with pytest.raises(MisconfigurationError, match=message):
        resolve_chain(config, output_dir=RUN)


@pytest.mark.parametrize("form", ["flags", "list"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer hunter2\n"},
        {"Authorization": "hunter2\x00"},
        {"Authorization": ["hunter2"]},
        {"Authorization": {"Bearer": "hunter2"}},
        {"Authorization: hunter2": ""},
        {"Authorization hunter2": "x"},
        {"": "hunter2"},
        ["Authorization: hunter2"],
        "Authorization: hunter2",
    ],
)
def test_what_is_wrong_with_added_headers_is_told_without_their_values(headers: Any, form: str) -> None:
    values = {"headers_to_add": headers}
    with pytest.raises((MisconfigurationError, ValidationError), match="headers_to_add") as caught:
        _chain(**(values if form == "flags" else {"interceptors": [{"name": "payload_modifier", "config": values}]}))
    assert "hunter2" not in str(caught.value)


def test_nobody_is_told_about_defaults() -> None:
    assert notices(None) == ()
    assert notices(AdapterConfig()) == ()
    assert notices(_config(use_caching=True, interceptors=["reasoning", "response_stats"])) == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"custom_system_prompt": "x"}, ["custom_system_prompt has no effect, because use_system_prompt is false"]),
        ({"use_caching": False, "caching_dir": "/c"}, ["caching_dir has no effect, because use_caching is false"]),
        (
            {"upstreams": {"judge": {"custom_system_prompt": "x"}}},
            ["adapter_config.upstreams.judge: custom_system_prompt has no effect"],
        ),
        ({"start_reasoning_token": "x"}, ["start_reasoning_token has no effect, because process_reasoning_traces"]),
        ({"mode": "client"}, ["mode 'client' is served by the proxy"]),
        (
            {"generate_html_report": False, "html_report_size": 5, "include_json": True},
            [
                "html_report_size has no effect, because generate_html_report is false",
                "include_json has no effect, because generate_html_report is false",
            ],
        ),
        ({"save_requests": True}, ["adapter_config: save_requests has no effect: with use_caching every exchange"]),
        (
            {
                "interceptors": [
                    {"name": "caching", "config": {"reuse_cached_responses": True, "save_responses": False}}
                ]
            },
            ["interceptors[0]: save_responses has no effect: with reuse_cached_responses every exchange"],
        ),
        ({"interceptors": [{"name": "caching", "config": {"save_requests": True}}], "use_caching": True}, []),
        ({"output_dir": "/elsewhere"}, ["output_dir has no effect: the folder of the run is config.output_dir"]),
        ({"headers_to_add": {"Host": "x", "X-A": "1"}}, ["headers_to_add: Host belongs to the connection"]),
    ],
)
def test_settings_without_effect_are_told(values: dict[str, Any], expected: list[str]) -> None:
    told = notices(_config(**values))
    assert len(told) == len(expected)
    assert all(text in notice for text, notice in zip(expected, told, strict=True))


@pytest.mark.parametrize(
    ("endpoint_type", "url", "fits"),
    [
        ("chat", "", True),
        ("vlm", "", True),
        ("completions", "", False),
        ("completions_logprob", "", False),
        ("embedding", "", False),
        (None, "http://x/v1/chat/completions?a=1", True),
        (None, "http://x/v1/completions/", False),
        (None, "http://x/v1/embeddings", False),
        (None, "http://x/v1", True),
    ],
)
def test_a_system_message_needs_a_chat_endpoint(endpoint_type: str | None, url: str, *, fits: bool) -> None:
    chain = _chain(use_system_prompt=True, custom_system_prompt="x")
    if fits:
        check_endpoint_type(chain, endpoint_type, url=url)
    else:
        with pytest.raises(MisconfigurationError, match="'system_message' works on chat requests"):
            check_endpoint_type(chain, endpoint_type, url=url)
    check_endpoint_type(_chain(use_reasoning=True), endpoint_type, url=url)


def test_the_oldest_place_of_the_url_may_repeat_it_or_stand_in_for_it() -> None:
    config = _config(api_url="http://x/v1/completions/")
    assert check_api_url(config, None) == "http://x/v1/completions/"
    assert check_api_url(config, "http://x/v1/completions") == "http://x/v1/completions"
    assert check_api_url(None, "http://y/") == "http://y/"
    assert check_api_url(AdapterConfig(), None) is None
    with pytest.raises(MisconfigurationError, match="api_url"):
        check_api_url(config, "http://y/v1/completions")
