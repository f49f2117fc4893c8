"""A harness with a model and a judge, as a definition and a parser."""

from __future__ import annotations

import sys
from pathlib import Path

HARNESS = Path(__file__).with_name("judged_harness.py")
DEFINITION = f"""
framework: {{name: judged, pkg_name: judged}}
defaults:
  command: >-
    {sys.executable} {HARNESS} --url {{{{target.api_endpoint.url}}}}
    --judge {{{{config.params.extra.judge.url}}}} --out {{{{config.output_dir}}}}
  config: {{params: {{extra: {{judge: {{url: null}}}}}}}}
  target: {{api_endpoint: {{}}}}
evaluations:
  - defaults: {{config: {{type: judged, supported_endpoint_types: [chat]}}}}
"""
PARSER = """
import json
from pathlib import Path
from nemo_evaluator.api.api_dataclasses import EvaluationResult, MetricResult, Score, ScoreStats, TaskResult

def parse_output(output_dir):
    found = json.loads((Path(output_dir) / "probe.json").read_text())
    score = Score(value=found["value"], stats=ScoreStats(count=3))
    metrics = {"accuracy": MetricResult(scores={"accuracy": score})}
    return EvaluationResult(tasks={"judged": TaskResult(metrics=metrics)})
"""
