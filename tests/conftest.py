from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
import trustme
from hypothesis import settings

from nemo_evaluator import env

# How long an example takes says something about the machine only.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

DEFINITION = """
framework:
  name: {name}
  pkg_name: {name}
  description: A framework made by a test.
defaults:
  command: >-
    {{% if target.api_endpoint.api_key_name %}}API_KEY=${{{{target.api_endpoint.api_key_name}}}}{{% endif %}}
    {name}-eval
    --task {{{{config.params.task}}}} --model {{{{target.api_endpoint.model_id}}}} --url {{{{target.api_endpoint.url}}}}
    --out {{{{config.output_dir}}}} --temperature {{{{config.params.temperature}}}}
    {{% if config.params.limit_samples is not none %}}--limit {{{{config.params.limit_samples}}}}{{% endif %}}
    --n {{{{config.params.extra.n_samples}}}}
    {{% if config.params.extra.args is defined %}}{{{{config.params.extra.args}}}}{{% endif %}}
  config:
    params:
      temperature: 0.5
      limit_samples: null
      extra: {{n_samples: 1, judge: {{url: null}}}}
  target:
    api_endpoint: {{}}
evaluations:
  - name: First
    description: The first task.
    defaults:
      config:
        type: first
        supported_endpoint_types: [chat, completions]
        params: {{task: first_task}}
  - name: Second
    defaults:
      config:
        type: second
        supported_endpoint_types: [chat]
        params: {{task: second_task, temperature: null, extra: {{n_samples: 5}}}}
  - name: Hidden
    internal: true
    defaults:
      config: {{type: hidden, params: {{task: hidden_task}}}}
"""


@pytest.fixture
def harnesses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of harnesses that NEMO_EVALUATOR_HARNESS_PATH names."""
    folder = tmp_path / "harnesses"
    folder.mkdir()
    monkeypatch.setenv(env.HARNESS_PATH, str(folder))
    return folder


@pytest.fixture
def add_harness(harnesses: Path) -> Callable[..., Path]:
    """Adds a definition: the one above, or another text."""

    def add(name: str = "made", text: str | None = None) -> Path:
        file = harnesses / name / "framework.yml"
        file.parent.mkdir()
        file.write_text(dedent(text) if text is not None else DEFINITION.format(name=name))
        return file

    return add


@dataclass(frozen=True)
class Certificates:
    """Files of a certificate for `localhost` and 127.0.0.1, and of the authority that nobody knows."""

    authority: Path
    chain: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made anew for each session: no key lies in the repository."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "chain.pem")
    return Certificates(folder / "authority.pem", folder / "chain.pem")
