"""The page about the interceptors against those that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticUndefined

from nemo_evaluator.adapters.chain import resolve_chain
from nemo_evaluator.adapters.registration import STAGES
from nemo_evaluator.adapters.registry import BUILT_IN, HOOKS, Kind
from nemo_evaluator.api.adapter_config import AdapterConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "interceptors.md").read_text()
SECTIONS = {
    match[1]: match[2] for match in re.finditer(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}
KINDS: dict[str, Kind] = {**BUILT_IN, **HOOKS}
ALWAYS = "endpoint"


def examples(section: str) -> list[dict[str, Any]]:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    return [yaml.safe_load(block)["adapter_config"] for block in blocks]


def shown_default(name: str, kind: Kind) -> str:
    field = kind.parameters.model_fields[name]
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, str):
        return f"`{default}`"
    text = yaml.safe_dump(list(default) if isinstance(default, tuple) else default, default_flow_style=True, width=1000)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def test_every_interceptor_has_a_section_and_no_other() -> None:
    assert set(SECTIONS) - {"Two forms", "The order of the chain"} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_is_shown_with_its_default(name: str) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", SECTIONS[name], flags=re.MULTILINE))
    kind = KINDS[name]
    assert rows == {
        parameter: shown_default(parameter, kind)
        for parameter in kind.parameters.model_fields
        if parameter != "log_level"
    }


@pytest.mark.parametrize("name", KINDS)
def test_the_examples_of_both_forms_switch_it_on(name: str) -> None:
    found = examples(SECTIONS[name])
    forms = [bool(example.get("interceptors")) for example in found]
    assert forms == ([True] if name == ALWAYS else [True, False])
    for example in found:
        config = AdapterConfig.model_validate(example)
        chain = [entry.name for entry in resolve_chain(config, output_dir="out")]
        in_hooks = [hook.name for hook in config.post_eval_hooks] or ["post_eval_report"] * config.generate_html_report
        assert name in (in_hooks if name in HOOKS else chain)


def test_the_stages_are_shown_in_their_order() -> None:
    section = SECTIONS["The order of the chain"]
    stages = dict(re.findall(r"^\d\. \*\*(\w+)\*\*:(.*?)(?=^\d\. |^Then)", section, flags=re.DOTALL | re.MULTILINE))
    assert tuple(stages) == STAGES
    for stage, text in stages.items():
        registered = [name for name, kind in BUILT_IN.items() if kind.stage == stage and name != ALWAYS]
        assert re.findall(r"`(\w+)`", text) == registered


def test_the_example_of_the_beginning_is_a_configuration() -> None:
    (example,) = examples(SECTIONS["Two forms"])
    chain = [entry.name for entry in resolve_chain(AdapterConfig.model_validate(example), output_dir="out")]
    assert chain == ["system_message", "caching", "retry", "endpoint"]


def test_the_flags_that_are_on_by_default_are_named() -> None:
    sentence = re.search(r"some are on by default:(.*?)\. ", SECTIONS["Two forms"], flags=re.DOTALL)
    assert sentence is not None
    config = AdapterConfig()
    on = {name for name in AdapterConfig.model_fields if getattr(config, name) is True}
    # It only says what a report has in it.
    assert set(re.findall(r"`(\w+)`", sentence[1])) == on - {"include_json"}
