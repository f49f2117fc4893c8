from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nemo_evaluator import env, errors
from nemo_evaluator.adapters.routes import resolve_routes
from nemo_evaluator.api.adapter_config import AdapterConfig
from nemo_evaluator.api.api_dataclasses import Evaluation
from nemo_evaluator.core.schema import json_schema

ROOT = Path(__file__).resolve().parents[2]
DEFINITIONS = sorted((ROOT / "harnesses").glob("*/framework.yml"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# The page about the fakes has tests of its own, beside theirs.
RUN = [page for page in PAGES if page.name != "testing.md"]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_what_a_page_shows_runs(page: Path, reader: Any) -> None:
    reader.follow(page)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in headings(file), target


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_the_shown_results_have_the_keys_of_real_ones(reader: Any, blocks_of: Callable[..., Any]) -> None:
    page = ROOT / "docs" / "using.md"
    (run,) = [block for block in blocks_of(page, "bash") if "--output_dir results/mmlu_pro" in block.text]
    reader.run(run)
    real = yaml.safe_load((reader.folder / "results" / "mmlu_pro" / "results.yml").read_text())
    (shown,) = [yaml.safe_load(block.text) for block in blocks_of(page, "yaml") if "provenance" in block.text]

    assert paths(shown) == {path for path in paths(real) if not within(path, unfolded(shown))}
    assert shown["coverage"] == real["coverage"]
    assert shown["results"]["tasks"] == real["results"]["tasks"]


def paths(document: Any, path: str = "") -> set[str]:
    """All dotted keys of nested mappings."""
    if not isinstance(document, dict):
        return set()
    keys = {f"{path}.{key}" for key in document}
    return keys.union(*(paths(value, f"{path}.{key}") for key, value in document.items()))


def unfolded(document: Any, path: str = "") -> set[str]:
    """The dotted keys whose value is not shown."""
    if document == "...":
        return {path}
    if not isinstance(document, dict):
        return set()
    return set().union(*(unfolded(value, f"{path}.{key}") for key, value in document.items()))


def within(path: str, roots: set[str]) -> bool:
    return any(path.startswith(f"{root}.") for root in roots)


def test_the_exit_codes_are_those_of_the_errors() -> None:
    text = (ROOT / "docs" / "using.md").read_text()
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}

    assert shown == {0} | {code for kind in vars(errors).values() if (code := getattr(kind, "exit_code", None))}


def test_every_variable_is_explained() -> None:
    text = (ROOT / "docs" / "using.md").read_text()

    names = [value for name, value in vars(env).items() if name.isupper() and isinstance(value, str)]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_name_of_the_python_page_exists() -> None:
    text = (ROOT / "docs" / "python.md").read_text()

    for module, name in re.findall(r"`(nemo_evaluator[\w.]*|nvidia_eval_commons[\w.]*)\.(\w+)`", text):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_the_table_of_harnesses_is_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/harness_table.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_schema_is_current() -> None:
    shown = json.loads((ROOT / "docs" / "framework.schema.json").read_text())

    assert shown == json_schema()


@pytest.mark.parametrize(
    "file", sorted((ROOT / "harnesses").glob("*/framework.yml")), ids=lambda file: file.parent.name
)
def test_the_schema_takes_every_definition(file: Path) -> None:
    schema = json.loads((ROOT / "docs" / "framework.schema.json").read_text())

    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(file.read_text()))


PROXY_PAGES = ("adapter.md", "interceptors.md", "watching.md")


def adapter_in(document: Any) -> Any:
    """The proxy's configuration that a block shows, alone or at its place; None when it shows none."""
    for keys in ((), ("api_endpoint",), ("target", "api_endpoint")):
        found = document
        for key in (*keys, "adapter_config"):
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None


def test_every_shown_configuration_of_the_proxy_is_one(blocks_of: Callable[..., Any]) -> None:
    shown = [
        (block, adapter)
        for name in PROXY_PAGES
        for block in blocks_of(ROOT / "docs" / name, "yaml")
        if (adapter := adapter_in(yaml.safe_load(block.text))) is not None
    ]
    assert {block.page.name for block, _ in shown} == set(PROXY_PAGES)
    for block, adapter in shown:
        evaluation = Evaluation.model_validate(
            {
                "command": "true",
                "framework_name": "f",
                "pkg_name": "f",
                "config": {"params": {"extra": {"judge": {"url": None}}}},
                "target": {"api_endpoint": {"url": "http://localhost/v1/chat/completions", "adapter_config": adapter}},
            }
        )
        assert resolve_routes(evaluation, "results"), f"{block.page.name}:{block.line}"


def test_every_key_of_the_proxy_s_configuration_is_explained() -> None:
    text = (ROOT / "docs" / "adapter.md").read_text()

    assert [name for name in AdapterConfig.model_fields if f"`{name}`" not in text and f"{name}:" not in text] == []
