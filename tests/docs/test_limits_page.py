"""The page about limits: its examples run, and what it says about repetitions is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.adapters.conftest import Client

from nemo_evaluator.adapters.chain import resolve_chain
from nemo_evaluator.adapters.interceptors.concurrency import ConcurrencyParameters
from nemo_evaluator.adapters.interceptors.retry import RetryParameters
from nemo_evaluator.adapters.proxy import ProxyOptions, Upstream, running_proxy
from nemo_evaluator.api.adapter_config import AdapterConfig
from nemo_evaluator.testing import FakeEndpoint

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "limits.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(example: str, tmp_path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(example)["adapter_config"]
    chain = resolve_chain(AdapterConfig.model_validate(config), output_dir=tmp_path)
    with (
        FakeEndpoint() as endpoint,
        running_proxy(Upstream(endpoint.chat_url), chain, options=ProxyOptions(output_dir=tmp_path)) as proxy,
    ):
        body = {"model": "my-model", "messages": [{"role": "user", "content": "x"}]}
        assert Client().post(proxy.url, body).status == 200


def test_the_statuses_named_are_those_repeated() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| yes", PAGE, flags=re.MULTILINE)
    named = {int(status) for row in rows for status in row.split(",")}
    assert named == set(RetryParameters().statuses)


@pytest.mark.parametrize("parameters", [RetryParameters(), ConcurrencyParameters()])
def test_every_parameter_in_the_text_exists(parameters: RetryParameters | ConcurrencyParameters) -> None:
    section = "Repetitions" if isinstance(parameters, RetryParameters) else "Concurrency"
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`([a-z]+_(?:seconds|attempts|refusals|probes))`", text))
    assert named
    assert named <= set(type(parameters).model_fields)
