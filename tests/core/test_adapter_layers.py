from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from nemo_evaluator.adapters.routes import resolve_routes
from nemo_evaluator.cli.main import main
from nemo_evaluator.core.definitions import discover
from nemo_evaluator.core.document import document
from nemo_evaluator.core.former_run import RUN_CONFIG_FILE, refuse_other_run
from nemo_evaluator.core.layers import Settings, flags_layer, overrides_layer, run_config_layer
from nemo_evaluator.core.lint import lint
from nemo_evaluator.core.overrides import parse
from nemo_evaluator.core.resolve import Resolved, resolve
from nemo_evaluator.errors import MisconfigurationError, UsageError

URL = "http://host/v1/chat/completions"
FLAGS = {
    "config.type": "task",
    "config.output_dir": "out",
    "target.api_endpoint.model_id": "m",
    "target.api_endpoint.url": URL,
    "target.api_endpoint.type": "chat",
}
# Each level says something of its own, and something that the next one changes.
DEFINITION = """
framework: {name: three, pkg_name: three}
defaults:
  command: run --url {{target.api_endpoint.url}} --judge {{config.params.extra.judge.url}}
  config: {params: {extra: {judge: {url: null}}}}
  target:
    api_endpoint:
      adapter_config:
        use_request_logging: true
        max_logged_requests: 1
        params_to_add: {from_framework: 1, changed: framework}
        retry: {max_attempts: 7}
        budget: {max_requests: 1000}
evaluations:
  - name: task
    defaults:
      config: {type: task, supported_endpoint_types: [chat]}
      target:
        api_endpoint:
          adapter_config:
            max_logged_requests: 2
            params_to_add: {from_task: 2, changed: task}
            budget: false
  - name: other
    defaults: {config: {type: other, supported_endpoint_types: [chat]}}
"""


@pytest.fixture(autouse=True)
def definition(add_harness: Callable[..., Path]) -> Path:
    return add_harness("three", DEFINITION)


def resolved(run_config: str = "", overrides: str = "", **flags: str | None) -> Resolved:
    layers = [run_config_layer(yaml.safe_load(dedent(run_config)), source="run.yml")] if run_config else []
    given = {**FLAGS, **{key.replace("__", "."): value for key, value in flags.items()}}
    layers += [flags_layer(given), overrides_layer(parse(overrides))]
    return resolve(Settings(tuple(layers)), discover())


def links(result: Resolved, route: int = 0) -> dict[str, dict[str, Any]]:
    return {entry.name: entry.config for entry in resolve_routes(result.evaluation, "out")[route].chain}


def test_framework_task_and_run_all_count_in_that_order() -> None:
    run_config = """
        target:
          api_endpoint:
            adapter_config: {max_logged_requests: 3, params_to_add: {from_run: 3}, use_response_logging: true}
    """

    of_framework, of_task, of_run = (
        links(resolved(config__type="other")),
        links(resolved()),
        links(resolved(run_config)),
    )

    assert of_framework["request_logging"] == {"max_requests": 1}
    assert of_framework["budget"] == {"max_requests": 1000}
    assert of_framework["payload_modifier"]["params_to_add"] == {"from_framework": 1, "changed": "framework"}
    assert of_task["request_logging"] == {"max_requests": 2}
    assert of_task["payload_modifier"]["params_to_add"] == {"from_framework": 1, "from_task": 2, "changed": "task"}
    assert of_task["retry"] == {"max_attempts": 7}
    assert "budget" not in of_task
    assert of_run["request_logging"] == {"max_requests": 3}
    assert of_run["payload_modifier"]["params_to_add"]["from_run"] == 3
    assert of_run["payload_modifier"]["params_to_add"]["changed"] == "task"
    assert "response_logging" in of_run


def test_lint_knows_all_places(definition: Path) -> None:
    assert [finding for finding in lint(definition) if finding.severity == "error"] == []
    definition.write_text(DEFINITION.replace("max_logged_requests: 2", "max_logged_request: 2"))
    messages = [finding.message for finding in lint(definition)]
    assert any("unknown key 'max_logged_request'. Did you mean 'max_logged_requests'" in text for text in messages)
    definition.write_text(DEFINITION.replace("max_attempts: 7", "max_attempt: 7"))
    assert any("'retry' has no parameter 'max_attempt'. Did you mean 'max_" in f.message for f in lint(definition))


@pytest.mark.parametrize(
    ("overrides", "attempts"),
    [
        ("retry=false", None),
        ("retry=true", {}),
        ("retry={max_attempts: 2}", {"max_attempts": 2}),
        ("retry.max_attempts=3", {"max_attempts": 3}),
    ],
)
def test_a_switch_replaces_parameters_of_a_lower_layer(overrides: str, attempts: dict[str, int] | None) -> None:
    assert links(resolved(overrides=f"target.api_endpoint.adapter_config.{overrides}")).get("retry") == attempts


@pytest.mark.parametrize(
    ("overrides", "link", "expected"),
    [
        ("budget=null", "budget", None),
        ("retry=null", "retry", {}),
        ("params_to_add=null", "payload_modifier", None),
        ("=null", "request_logging", None),
    ],
)
def test_null_resets_what_lower_layers_set(overrides: str, link: str, expected: dict[str, Any] | None) -> None:
    given = links(resolved(config__type="other"))
    place = "target.api_endpoint.adapter_config"
    override = f"{place}{'' if overrides.startswith('=') else '.'}{overrides}"
    reset = links(resolved(overrides=override, config__type="other"))

    assert given[link]
    assert reset.get(link) == expected


def test_null_resets_judges_of_lower_layers() -> None:
    adapter = "{upstreams: {judge: {url: 'http://j/v1', retry: {max_attempts: 2}}}}"
    run_config = f"target: {{api_endpoint: {{adapter_config: {adapter}}}}}"
    place = "target.api_endpoint.adapter_config"

    assert len(resolve_routes(resolved(run_config).evaluation, "out")) == 2
    for overrides in (f"{place}.upstreams=null", f"{place}.upstreams.judge=null", f"{place}=null"):
        assert len(resolve_routes(resolved(run_config, overrides).evaluation, "out")) == 1


def test_an_empty_section_resets_nothing() -> None:
    for run_config in (
        "config:",
        "config: {params:}",
        "config: {params: {extra:}}",
        "target:",
        "target: {api_endpoint:}",
    ):
        result = resolved(run_config)
        assert result.evaluation.config.params is not None
        assert result.evaluation.config.params.extra == {"judge": {"url": None}}
        assert links(result)["retry"] == {"max_attempts": 7}


def test_a_judge_of_a_lower_layer_can_be_switched_off() -> None:
    run_config = (
        "target: {api_endpoint: {adapter_config: {upstreams: {judge: {url: 'http://j/v1', retry: {max_attempts: 2}}}}}}"
    )
    place = "target.api_endpoint.adapter_config.upstreams.judge"

    assert links(resolved(run_config), 1)["retry"] == {"max_attempts": 2}
    assert "retry" not in links(resolved(run_config, f"{place}.retry=false"), 1)
    assert len(resolve_routes(resolved(run_config, f"{place}=false").evaluation, "out")) == 1


def test_the_configuration_for_all_lies_below_and_places_add_up(tmp_path: Path) -> None:
    for name in ("site", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(
            "from nemo_evaluator.adapters import register_for_adapter\n"
            f"@register_for_adapter('{name}')\n"
            "async def pass_on(request, call_next):\n    return await call_next(request)\n"
        )
    run_config = f"""
        global_adapter_config: {{max_logged_requests: 8, use_caching: false, discovery: {{dirs: [{tmp_path}/site]}}}}
        target:
          api_endpoint:
            adapter_config:
              use_caching: true
              discovery: {{dirs: [{tmp_path}/own]}}
    """

    result = resolved(run_config)

    assert links(result)["request_logging"] == {"max_requests": 8}
    assert "caching" in links(result)
    assert {"site", "own"} <= set(resolve_routes(result.evaluation, "out")[0].known)


def test_a_definition_s_folder_of_interceptors_is_beside_it(definition: Path) -> None:
    folder = definition.parent / "interceptors"
    folder.mkdir()
    (folder / "mine.py").write_text(
        "from nemo_evaluator.adapters import register_for_adapter\n"
        "@register_for_adapter('theirs')\nasync def pass_on(request, call_next):\n    return await call_next(request)\n"
    )
    definition.write_text(DEFINITION.replace("use_request_logging: true", "discovery: {dirs: [interceptors]}"))

    (model,) = resolve_routes(resolved().evaluation, "out")

    assert "theirs" in model.known


def test_the_url_may_stand_in_the_oldest_place() -> None:
    oldest = f"target: {{api_endpoint: {{adapter_config: {{api_url: '{URL}'}}}}}}"
    result = resolved(oldest, target__api_endpoint__url=None)

    assert result.evaluation.target.api_endpoint is not None
    assert result.evaluation.target.api_endpoint.url == URL


@pytest.mark.parametrize("place", ["config", "target", "config.params"])
def test_a_misplaced_configuration_is_told_where_it_belongs(place: str) -> None:
    with pytest.raises(MisconfigurationError, match=r"It belongs in target\.api_endpoint\.adapter_config"):
        resolved(overrides=f"{place}.adapter_config.use_caching=true")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("use_cachng=true", "Did you mean 'use_caching'"),
        ("interceptors=[cachin]", "there is no 'cachin'. Did you mean 'caching'"),
        ("retry={max_atempts: 2}", "'retry' has no parameter 'max_atempts'. Did you mean 'max_attempts'"),
        ("upstreams.judge.use_cachng=true", "Did you mean 'use_caching'"),
        ("discovery.dirs=[/nowhere]", "there is no folder /nowhere"),
    ],
)
def test_a_slip_ends_the_command_within_a_second(
    setting: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["run_eval", "--eval_type", "task", "--model_id", "m", "--model_type", "chat", "--model_url", URL]
    started = time.monotonic()

    code = main(
        [
            *arguments,
            "--output_dir",
            str(tmp_path / "o"),
            "--overrides",
            f"target.api_endpoint.adapter_config.{setting}",
        ]
    )

    assert code == 2
    assert time.monotonic() - started < 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def refused(folder: Path, former: str, now: str) -> str:
    """What is said when a run with the settings `now` goes on where one with `former` was; empty when it may."""
    place = "target.api_endpoint.adapter_config"
    written = [
        document(resolved(overrides=re.sub(r"(^|, )(?=[a-z_.]+=)", rf"\1{place}.", text)).evaluation)
        for text in (former, now)
    ]
    (folder / RUN_CONFIG_FILE).write_text(yaml.safe_dump(written[0]))
    try:
        refuse_other_run(folder, written[1])
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("", "retry=false"),
        ("", "concurrency=false"),
        ("", "budget={max_requests: 3}"),
        ("", "use_caching=false"),
        ("caching_dir=/a", "caching_dir=/b"),
        ("", "use_request_logging=false"),
        ("", "log_failed_requests=true"),
        ("", "use_progress_tracking=true"),
        ("", "html_report_size=50"),
        ("", "include_json=false"),
        ("", "metrics_port=9000"),
        ("use_reasoning=true", "use_reasoning=true, caching_dir=/x"),
        ("use_reasoning=true", "process_reasoning_traces=true"),
        ("", "upstreams.judge=false"),
        ("interceptors=[caching, reasoning]", "interceptors=[{name: reasoning, config: {end_reasoning_token: null}}]"),
    ],
)
def test_what_changes_neither_requests_nor_answers_may_change(tmp_path: Path, former: str, now: str) -> None:
    assert refused(tmp_path, former, now) == ""


@pytest.mark.parametrize(
    "now", ["upstreams.judge.url='http://j/v1'", "upstreams.judge.parameter=config.params.extra.judge.url"]
)
def test_a_judge_s_address_may_be_said_again(tmp_path: Path, definition: Path, now: str) -> None:
    definition.write_text(DEFINITION.replace("judge: {url: null}", "judge: {url: 'http://j/v1'}"))
    assert refused(tmp_path, "", now) == refused(tmp_path, now, "") == ""
    assert "upstreams.judge.url" in refused(tmp_path, "", "upstreams.judge.url='http://k/v1'")


@pytest.mark.parametrize(
    ("former", "now", "place"),
    [
        ("", "params_to_add.changed=other", "payload_modifier.params_to_add.changed was 'task' and is 'other'"),
        ("", "use_reasoning=true", "reasoning"),
        ("use_reasoning=true", "use_reasoning=true, end_reasoning_token=x", "reasoning.end_reasoning_token"),
        ("drop_params=[seed]", "drop_params=[top_p]", "drop_params.params"),
        ("turn_counter=true", "", "turn_counter"),
        ("upstreams.judge.url='http://j/v1'", "", "upstreams.judge"),
    ],
)
def test_what_changes_requests_or_answers_may_not(tmp_path: Path, former: str, now: str, place: str) -> None:
    said = refused(tmp_path, former, now)
    assert "holds a run with other settings" in said
    assert place in said


def test_the_same_chain_in_the_other_form_may_go_on(tmp_path: Path, definition: Path) -> None:
    bare = DEFINITION[: DEFINITION.index("      adapter_config:")] + "      adapter_config: {}\nevaluations:\n"
    definition.write_text(bare + "  - {name: task, defaults: {config: {type: task}}}\n")
    assert refused(tmp_path, "use_reasoning=true", "interceptors=[caching, reasoning]") == ""
    assert refused(tmp_path, "use_reasoning=true", "interceptors=[caching]") != ""
