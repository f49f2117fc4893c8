from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nemo_evaluator.adapters.judges import judge_parameters
from nemo_evaluator.adapters.post_eval_report import report_settings
from nemo_evaluator.adapters.route import Route
from nemo_evaluator.adapters.routes import at, replaced_parameters, resolve_routes, routing_notices
from nemo_evaluator.api.adapter_config import AdapterConfig
from nemo_evaluator.api.api_dataclasses import Evaluation
from nemo_evaluator.errors import MisconfigurationError

RUN = Path("/results/run")
JUDGE = "http://judge:9000/v1"
HOOK = {"name": "post_eval_report", "config": {"report_types": ["json"], "html_report_size": 2}}


def evaluation(extra: dict[str, Any] | None = None, **adapter: Any) -> Evaluation:
    return Evaluation.model_validate(
        {
            "command": "true",
            "framework_name": "f",
            "pkg_name": "f",
            "config": {"type": "t", "params": {"request_timeout": 9000, "extra": extra or {}}},
            "target": {
                "api_endpoint": {
                    "url": "http://m/v1/chat/completions", "type": "chat", "adapter_config": adapter or None
                }
            },
        }
    )  # fmt: skip


def routes(extra: dict[str, Any] | None = None, **adapter: Any) -> tuple[Route, ...]:
    return resolve_routes(evaluation(extra, **adapter), RUN)


def names(route: Route) -> list[str]:
    return [entry.name for entry in route.chain]


def parameters(route: Route, name: str) -> dict[str, Any]:
    return next(entry.config for entry in route.chain if entry.name == name)


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (None, {}),
        ({"judge": {"url": None}}, {}),
        ({"judge": {"url": JUDGE}}, {"judge": "judge.url"}),
        ({"judge_1": {"url": JUDGE}, "judge_2": {"url": JUDGE}}, {"judge_1": "judge_1.url", "judge_2": "judge_2.url"}),
        ({"judge_url": JUDGE}, {"judge": "judge_url"}),
        ({"judge_3_url": JUDGE.upper()}, {"judge_3": "judge_3_url"}),
        ({"judge_url": JUDGE, "judge": {"url": JUDGE}}, {"judge": "judge.url"}),
        ({"judge": {"url": "gpt-4"}, "judge_x": {"url": JUDGE}, "my_judge": {"url": JUDGE}, "url": JUDGE}, {}),
        ({"judge": JUDGE, "judge_support": {"url": JUDGE}}, {}),
    ],
)
def test_where_the_published_harnesses_keep_their_judges(
    extra: dict[str, Any] | None, expected: dict[str, str]
) -> None:
    found = {name: ".".join(keys) for name, keys in judge_parameters(extra).items()}
    assert found == {name: f"config.params.extra.{keys}" for name, keys in expected.items()}


def test_the_model_comes_first_and_waits_as_long_as_the_harness() -> None:
    (model,) = routes()
    assert (model.name, model.upstream.url) == ("model", "http://m/v1/chat/completions")
    assert model.upstream.request_timeout == 9000
    assert model.parameter is None


def test_a_judge_in_a_usual_parameter_has_a_route_and_the_user_is_told() -> None:
    model, judge = routes(
        {"judge": {"url": JUDGE}}, use_system_prompt=True, custom_system_prompt="x", use_reasoning=True
    )
    assert (judge.name, judge.upstream.url) == ("judge", JUDGE)
    # Nothing of what is done to the model's requests and answers.
    assert names(judge) == ["response_stats", "finish_reason", "caching", "retry", "concurrency", "endpoint"]
    assert parameters(judge, "caching") == parameters(model, "caching")
    assert judge.parameter == ("config", "params", "extra", "judge", "url")
    (notice,) = routing_notices(evaluation({"judge": {"url": JUDGE}}))
    assert "config.params.extra.judge.url" in notice
    assert "upstreams: {judge: false}" in notice


def test_a_judge_that_was_configured_needs_no_notice() -> None:
    told = evaluation({"judge": {"url": JUDGE}}, upstreams={"judge": {"retry": False}})
    assert routing_notices(told) == ()
    assert "retry" not in names(resolve_routes(told, RUN)[1])


def test_false_leaves_a_judge_alone() -> None:
    extra = {"judge": {"url": JUDGE}}
    assert len(routes(extra, upstreams={"judge": False})) == 1
    assert routing_notices(evaluation(extra, upstreams={"judge": False})) == ()


def test_a_parameter_of_any_name_may_hold_the_url() -> None:
    extra = {"grader": {"address": JUDGE}, "judge_url": JUDGE}
    path = "config.params.extra.grader.address"
    _, grader, judge = routes(extra, upstreams={"grader": {"parameter": path, "api_key_name": "K"}})
    assert (grader.name, grader.upstream.url, grader.api_key_name) == ("grader", JUDGE, "K")
    assert judge.name == "judge"
    urls = {"grader": "http://127.0.0.1:1/a/v1", "judge": "http://127.0.0.1:1/b/v1"}
    assert replaced_parameters((grader, judge), urls) == {
        ("config", "params", "extra", "grader", "address"): urls["grader"],
        ("config", "params", "extra", "judge_url"): urls["judge"],
    }


def test_two_names_for_one_parameter_make_one_route() -> None:
    path = "config.params.extra.judge.url"
    found = routes({"judge": {"url": JUDGE}}, upstreams={"mine": {"parameter": path}})
    assert [route.name for route in found] == ["model", "mine"]


@pytest.mark.parametrize(
    ("extra", "path"), [({"judge": {"url": None}}, "judge.url"), ({"judge_url": None}, "judge_url")]
)
def test_a_url_may_stand_in_for_a_usual_parameter_that_is_empty(extra: dict[str, Any], path: str) -> None:
    _, judge = routes(extra, upstreams={"judge": {"url": JUDGE}})
    assert (judge.upstream.url, judge.parameter) == (JUDGE, ("config", "params", "extra", *path.split(".")))


def test_a_judge_may_have_a_list_of_its_own() -> None:
    listed = ["request_logging", {"name": "retry", "config": {"max_attempts": 2}}]
    _, judge = routes({"judge": {"url": None}}, upstreams={"judge": {"url": JUDGE, "interceptors": listed}})
    assert names(judge) == ["request_logging", "retry", "endpoint"]


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        ({"use_caching": False}, None),
        ({"caching_dir": "/c"}, {"cache_dir": "/c"}),
        ({"interceptors": ["reasoning"]}, None),
        ({"interceptors": [{"name": "caching", "config": {"cache_dir": "/c"}}]}, {"cache_dir": "/c"}),
    ],
)
def test_a_run_has_one_store(adapter: dict[str, Any], expected: dict[str, Any] | None) -> None:
    _, judge = routes({"judge": {"url": JUDGE}}, **adapter)
    if expected is None:
        assert "caching" not in names(judge)
    else:
        assert parameters(judge, "caching").items() >= expected.items()
    _, own = routes({"judge": {"url": JUDGE}}, **adapter, upstreams={"judge": {"caching_dir": "/own"}})
    assert parameters(own, "caching")["cache_dir"] == "/own"


def test_a_run_has_one_budget() -> None:
    extra = {"judge": {"url": JUDGE}}
    _, judge = routes(extra, budget={"max_requests": 5})
    assert parameters(judge, "budget") == {"max_requests": 5}
    assert names(judge)[-3:] == ["concurrency", "budget", "endpoint"]
    _, free = routes(extra, budget={"max_requests": 5}, upstreams={"judge": {"budget": False}})
    assert "budget" not in names(free)


def test_the_model_s_endpoint_may_turn_out_to_be_elsewhere() -> None:
    model, judge = at(routes({"judge": {"url": JUDGE}}), "http://m/elsewhere/v1/chat/completions")
    assert model.upstream.url == "http://m/elsewhere/v1/chat/completions"
    assert model.upstream.request_timeout == 9000
    assert judge.upstream.url == JUDGE


@pytest.mark.parametrize(
    ("upstreams", "message"),
    [
        (
            {"judge": {}},
            r"upstreams\.judge: has no URL: give `url`, or a value for its parameter config\.params\.extra\.ju",
        ),
        ({"other": {"url": JUDGE}}, r"upstreams\.other: the harness would not learn .* name in `parameter`"),
        (
            {"judge": {"parameter": "config.params.extra.x.url"}},
            r"judge\.parameter: the configuration has no config\.p",
        ),
        ({"model": {"url": JUDGE}}, "'model' cannot name a further endpoint: that is the endpoint under test"),
        ({"a-b": {"url": JUDGE}}, "it may hold letters, digits and _ only"),
        ({"judge": {"url": "judge:9000"}}, "must be like http://HOST"),
        ({"judge": {"url": "http://me:s3cret@judge/v1"}}, r"upstreams\.judge: its URL holds a user name or password"),
        ({"judge": {"url": "http://j/v1?key=<redacted>"}}, "stands for a value that is not written"),
        ({"judge": {"url": JUDGE, "interceptors": ["cachin"]}}, r"judge\.interceptors\[0\]: there is no 'cachin'. Did"),
        ({"judge": {"url": JUDGE, "retry": {"x": 1}}}, r"upstreams\.judge: 'retry' has no parameter 'x'"),
        ({"judge": {"url": JUDGE, "use_nvcf": True}}, r"upstreams\.judge\.use_nvcf: .* not part of the public"),
        (
            {"judge": {"url": "http://j/v1/completions", "use_system_prompt": True, "custom_system_prompt": "x"}},
            "'system_message' works on chat requests",
        ),
    ],
)
def test_what_is_wrong_with_a_judge_is_refused(upstreams: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationError, match=message) as caught:
        routes({"judge": {"url": None}}, upstreams=upstreams)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("adapter", "types", "size"),
    [
        ({}, ("html", "json"), None),
        ({"include_json": False, "html_report_size": 9}, ("html",), 9),
        # As many as by default, and yet somebody said so.
        ({"html_report_size": 5}, ("html", "json"), 5),
        ({"generate_html_report": False}, (), None),
        ({"interceptors": ["caching"]}, ("html", "json"), None),
        ({"post_eval_hooks": ["post_eval_report"]}, ("html",), None),
        (
            {"post_eval_hooks": [HOOK]},
            ("json",),
            2,
        ),
        ({"post_eval_hooks": [{"name": "post_eval_report", "enabled": False}]}, (), None),
    ],
)  # fmt: skip
def test_which_report_is_asked_for(adapter: dict[str, Any], types: tuple[str, ...], size: int | None) -> None:
    settings = report_settings(AdapterConfig.model_validate(adapter))
    assert (settings.types, settings.size) == (types, size)


def test_hook_and_flags_cannot_both_set_up_the_report() -> None:
    with pytest.raises(MisconfigurationError, match="html_report_size and the hook 'post_eval_report' both"):
        routes(post_eval_hooks=["post_eval_report"], html_report_size=9)


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ([HOOK, "post_eval_report"], "'post_eval_report' stands there twice"),
        (
            [{"name": "post_eval_report", "config": {"report_types": []}}],
            "'report_types': must name html, json or both",
        ),
    ],
)
def test_a_report_is_set_up_once_and_has_a_form(hooks: list[Any], message: str) -> None:
    with pytest.raises(MisconfigurationError, match=message):
        routes(post_eval_hooks=hooks)


def test_a_judge_that_asks_for_a_store_has_one_where_the_model_has_none() -> None:
    judge = {"url": JUDGE, "use_caching": True}
    _, with_own = routes({"judge": {"url": None}}, use_caching=False, upstreams={"judge": judge})
    _, shared = routes({"judge": {"url": None}}, caching_dir="/c", upstreams={"judge": judge})

    assert [entry.config["cache_dir"] for entry in with_own.chain if entry.name == "caching"] != ["/c"]
    assert [entry.config["cache_dir"] for entry in shared.chain if entry.name == "caching"] == ["/c"]
