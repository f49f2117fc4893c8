"""A harness that asks a few questions, and its score."""

from __future__ import annotations

import sys
from pathlib import Path

PROBE = Path(__file__).with_name("probe_harness.py")
PARSER = """
import json
from pathlib import Path
from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, ScoreStats, TaskResult

def parse_output(output_dir):
    found = json.loads((Path(output_dir) / "probe.json").read_text())
    score = Score(value=float(found["value"]), stats=ScoreStats(count=4))
    return EvaluationResult(tasks={"probe": TaskResult(metrics={"accuracy": MetricResult(scores={"accuracy": score})})})
"""


def probe_definition(*, before: str = "", after: str, params: str) -> str:
    """The `framework.yml` of the probe.

    Args:
        before: shell text and templates in front of its command.
        after: further arguments of it.
        params: YAML of the defaults of `config.params`.
    """
    return f"""
framework: {{name: probe, pkg_name: probe}}
defaults:
  command: >-
    {before}
    {sys.executable} {PROBE} --url {{{{target.api_endpoint.url}}}} --model {{{{target.api_endpoint.model_id}}}}
    --out {{{{config.output_dir}}}} --n {{{{config.params.extra.n}}}} {after}
  config:
    params: {params}
  target: {{api_endpoint: {{}}}}
evaluations:
  - name: probe
    defaults: {{config: {{type: probe, supported_endpoint_types: [chat]}}}}
"""
