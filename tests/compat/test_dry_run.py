from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from tests.compat.conftest import PublishedEnvironment

RENDER_EVERY_TASK = Path(__file__).with_name("render_every_task.py")
URL = "http://localhost:8000/v1/chat/completions"


@pytest.mark.parametrize(
    ("name", "count", "program"),
    [
        ("nvidia-lm-eval", 133, " lm-eval --tasks "),
        ("nvidia-scicode", 3, " scicode_eval --model m "),
        ("nvidia-simple-evals", 88, " simple_evals --model m "),
    ],
)
def test_every_task_of_the_wheel_renders(
    published_environment: Callable[[str], PublishedEnvironment], name: str, count: int, program: str
) -> None:
    done = published_environment(name).run("python", RENDER_EVERY_TASK)

    assert (done.returncode, done.stderr) == (0, "")
    commands = json.loads(done.stdout)
    assert len(commands) == count
    assert all(program in f" {command}" for command in commands.values())


@pytest.mark.parametrize(
    ("name", "task", "program"),
    [
        ("nvidia-lm-eval", "mmlu_instruct", "lm-eval --tasks mmlu_str --num_fewshot 0 "),
        ("nvidia-scicode", "scicode_background", "scicode_eval --model my-model "),
        ("nvidia-simple-evals", "simple_evals.mmlu_pro", "simple_evals --model my-model --eval_name mmlu_pro "),
    ],
)
def test_a_dry_run_prints_the_configuration_and_the_command(
    published_environment: Callable[[str], PublishedEnvironment], tmp_path: Path, name: str, task: str, program: str
) -> None:
    done = published_environment(name).evaluate(
        *("--eval_type", task, "--output_dir", tmp_path / "out", "--dry_run"),
        *("--model_id", "my-model", "--model_type", "chat", "--model_url", URL),
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("\nAdapter chain: ")
    head, _, command = done.stdout.partition("\n\n\nRendered command:\n\n")
    assert head.startswith("Rendered config:\n\n")
    configuration = yaml.safe_load(head.partition("\n\n")[2])
    assert list(configuration) == ["command", "framework_name", "pkg_name", "config", "target"]
    assert configuration["target"]["api_endpoint"]["url"] == URL
    assert program in command
    assert not (tmp_path / "out").exists()
