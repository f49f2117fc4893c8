from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters import adapter_config as compatible_path
from nemo_evaluator.api.adapter_config import AdapterConfig, DiscoveryConfig, InterceptorConfig, PostEvalHookConfig
from nemo_evaluator.api.api_dataclasses import ApiEndpoint


def test_the_documented_flag_form_constructs() -> None:
    config = AdapterConfig(
        api_url="http://0.0.0.0:8080/v1/completions/",
        use_reasoning=True,  # type: ignore[call-arg]  # the older name, known at run time
        end_reasoning_token="</think>",
        start_reasoning_token="<think>",
        custom_system_prompt="You are a helpful assistant that thinks step by step.",
        use_caching=True,
        caching_dir="./cache",
        use_request_logging=True,
        use_response_logging=True,
        max_logged_requests=100,
        max_logged_responses=100,
        log_failed_requests=True,
    )
    assert config.process_reasoning_traces
    assert config.caching_dir == "./cache"


def test_the_documented_list_form_constructs() -> None:
    config = AdapterConfig(
        interceptors=[
            InterceptorConfig(name="caching", config={"cache_dir": "./cache", "reuse_cached_responses": True}),
            InterceptorConfig(name="request_logging", config={"max_requests": 10}),
        ]
    )
    assert [entry.name for entry in config.interceptors] == ["caching", "request_logging"]
    assert config.interceptors[0].enabled


def test_attributes_may_be_set_after_construction_and_are_checked() -> None:
    config = AdapterConfig(api_url="http://0.0.0.0:8080/v1/completions/", use_caching=True)
    config.use_reasoning = True
    config.end_reasoning_token = "</think>"
    config.use_progress_tracking = True
    config.progress_tracking_url = "http://localhost:3828/progress"
    assert config.process_reasoning_traces
    with pytest.raises(ValidationError, match="progress_tracking_interval"):
        config.progress_tracking_interval = 0
    with pytest.raises(ValidationError, match="Did you mean 'use_caching'"):
        config.use_cachin = True  # type: ignore[attr-defined]  # the misspelling is the point


def test_every_key_of_the_compatible_form_has_its_default() -> None:
    config = AdapterConfig()
    on = ("use_caching", "generate_html_report", "include_json", "tracking_requests_stats")
    off = (
        "save_requests",
        "save_responses",
        "use_system_prompt",
        "use_request_logging",
        "use_response_logging",
        "process_reasoning_traces",
        "use_reasoning",
        "use_progress_tracking",
        "use_raise_client_errors",
        "use_omni_info",
        "use_nvcf",
        "log_failed_requests",
    )
    unset = (
        "caching_dir",
        "max_saved_requests",
        "max_saved_responses",
        "custom_system_prompt",
        "params_to_add",
        "params_to_remove",
        "params_to_rename",
        "headers_to_add",
        "headers_to_remove",
        "headers_to_rename",
        "max_logged_requests",
        "max_logged_responses",
        "start_reasoning_token",
        "include_if_reasoning_not_finished",
        "track_reasoning",
        "progress_tracking_url",
        "output_dir",
        "api_url",
    )
    values = {
        "html_report_size": 5,
        "logging_aggregated_stats_interval": 100,
        "end_reasoning_token": "</think>",
        "progress_tracking_interval": 1,
        "mode": "server",
        "endpoint_type": "chat",
        "discovery": DiscoveryConfig(modules=[], dirs=[]),
        "interceptors": [],
        "post_eval_hooks": [],
    }
    expected = dict.fromkeys(on, True) | dict.fromkeys(off, False) | dict.fromkeys(unset) | values
    assert {name: getattr(config, name) for name in expected} == expected
    # Beside these there are only our own.
    own: dict[str, Any] = {
        **dict.fromkeys(("retry", "concurrency", "finish_reason"), True),
        **dict.fromkeys(("trace", "budget", "drop_params", "modify_tools", "turn_counter", "headers"), False),
        **dict.fromkeys(("seed_cache_dir", "metrics_port")),
        "upstreams": {},
    }
    assert {name: getattr(config, name) for name in own} == own
    assert {*AdapterConfig.model_fields, "use_reasoning"} == {*expected, *own}


def test_an_own_interceptor_is_switched_by_its_name() -> None:
    config = AdapterConfig(retry=False, budget={"requests": 5}, drop_params=["seed"])
    assert (config.retry, config.budget, config.drop_params) == (False, {"requests": 5}, ["seed"])
    assert config.model_dump() == {"retry": False, "budget": {"requests": 5}, "drop_params": ["seed"]}


def test_a_judge_has_an_address_and_a_chain_of_its_own() -> None:
    judge = {"url": "http://j/v1", "api_key_name": "JUDGE_KEY", "retry": {"seconds": 60}, "interceptors": ["caching"]}
    config = AdapterConfig.model_validate({"upstreams": {"judge": judge, "judge_1": False}})
    assert config.upstreams["judge"].interceptors == [InterceptorConfig(name="caching")]
    assert config.upstreams["judge"].enabled
    assert not config.upstreams["judge_1"].enabled
    assert AdapterConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"use_cachin": True}, "Did you mean 'use_caching'"),
        ({"interceptor": []}, "Did you mean 'interceptors'"),
        ({"interceptors": [{"name": "caching", "params": {}}]}, "unknown key 'params'"),
        ({"interceptors": [{"nme": "caching"}]}, "Did you mean 'name'"),
        ({"discovery": {"folders": []}}, "unknown key 'folders'"),
        ({"interceptors": "caching"}, "interceptors"),
        ({"mode": "proxy"}, "mode"),
        ({"max_logged_requests": -1}, "max_logged_requests"),
        ({"headers_to_add": {"X-A": "1\r\nX-B: 2"}}, "headers_to_add"),
        ({"use_reasoning": True, "process_reasoning_traces": False}, "are one setting and differ"),
        ({"retry": 5}, "must be true, false or a mapping of parameters"),
        ({"drop_params": [1]}, "must be true, false, a list of names or a mapping of parameters"),
        ({"upstreams": {"judge": "http://j"}}, "upstreams.judge"),
        ({"upstreams": {"judge": {"ulr": "http://j"}}}, "unknown key 'ulr'. Did you mean 'url'"),
        ({"upstreams": {"judge": {"upstreams": {}}}}, "unknown key 'upstreams'"),
        ({"upstreams": {"judge": {"api_key_name": "sk 1"}}}, "must be the name of an environment variable"),
        ({"metrics_port": 70000}, "metrics_port"),
    ],
)
def test_what_is_wrong_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AdapterConfig.model_validate(data)


def test_a_name_alone_stands_for_an_entry() -> None:
    config = AdapterConfig.model_validate({"interceptors": ["caching"], "post_eval_hooks": ["post_eval_report"]})
    assert config.interceptors == [InterceptorConfig(name="caching")]
    assert config.post_eval_hooks == [PostEvalHookConfig(name="post_eval_report")]


def test_null_stands_for_the_default() -> None:
    config = AdapterConfig.model_validate({"use_caching": None, "end_reasoning_token": None, "html_report_size": None})
    assert (config.use_caching, config.end_reasoning_token, config.html_report_size) == (True, "</think>", 5)
    assert config.model_dump() == {}
    assert AdapterConfig.model_validate({"upstreams": {"judge": None}}).upstreams == {}


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [("use_caching", False, True), ("use_reasoning", True, False), ("caching_dir", "/c", None)],
)
def test_null_stands_for_the_default_where_it_is_assigned(name: str, value: Any, default: Any) -> None:
    config = AdapterConfig.model_validate({name: value})
    setattr(config, name, None)
    assert getattr(config, name) == default
    assert config == AdapterConfig()
    assert config.model_dump() == {}
    assert config.output_dir is None
    with pytest.raises(ValidationError):
        config.html_report_size = -1


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"use_caching": True},
        {"use_caching": False, "headers_to_add": {"X-A": "1"}},
        {"interceptors": [{"name": "reasoning", "enabled": False, "config": {"end_reasoning_token": "x"}}]},
        {"process_reasoning_traces": True, "params_to_add": {"a": {"b": [1, None, 2.5]}}},
    ],
)
def test_what_is_written_is_plain_data_that_means_the_same_when_read_again(data: dict[str, Any]) -> None:
    dumped = AdapterConfig.model_validate(data).model_dump(mode="json")
    assert dumped == data
    read = strict_yaml.loads(strict_yaml.dumps(dumped), source="test")
    assert AdapterConfig.model_validate(read).model_dump(mode="json") == data


def test_a_list_that_was_appended_to_is_written() -> None:
    config = AdapterConfig()
    config.interceptors.append(InterceptorConfig(name="reasoning"))
    assert [entry["name"] for entry in config.model_dump()["interceptors"]] == ["reasoning"]


def test_a_configuration_that_was_never_given_is_none() -> None:
    assert ApiEndpoint(url="http://x/").model_dump()["adapter_config"] is None
    assert ApiEndpoint(url="http://x/", adapter_config=AdapterConfig()).model_dump()["adapter_config"] == {}


def test_the_compatible_import_path_has_the_same_classes() -> None:
    assert compatible_path.AdapterConfig is AdapterConfig
    assert compatible_path.InterceptorConfig is InterceptorConfig


def test_an_error_does_not_repeat_secrets() -> None:
    with pytest.raises(ValidationError) as caught:
        AdapterConfig.model_validate({"headers_to_add": {"X-Key": "hunter2\n"}})
    assert "hunter2" not in str(caught.value)


def test_loading_it_does_not_load_the_http_libraries() -> None:
    code = (
        "import sys; import nemo_evaluator.adapters.chain, nemo_evaluator.adapters.proxy; "
        "print([name for name in ('aiohttp', 'jinja2', 'rich') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
