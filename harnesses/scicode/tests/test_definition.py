from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.compat.conftest import PublishedEnvironment

from nemo_evaluator.core.lint import lint

HARNESS = Path(__file__).parents[1]
OURS = {"test_data", "test_data_url", "test_data_sha256", "max_failed_fraction", "test_memory_mib"}
HERE = {"NEMO_EVALUATOR_HARNESS_PATH": str(HARNESS.parent)}


def dry_run(environment: PublishedEnvironment, task: str, **variables: str) -> tuple[dict[str, Any], list[str]]:
    """The configuration and the command's words that a dry run with the arguments of the document prints."""
    done = environment.evaluate(
        *("--eval_type", task, "--model_id", "my_model", "--model_type", "chat"),
        *("--model_url", "http://localhost:8000", "--output_dir", "./evaluation_results", "--dry_run"),
        **variables,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("\nAdapter chain: ")
    head, _, command = done.stdout.partition("\n\n\nRendered command:\n\n")
    assert head.startswith("Rendered config:\n\n")
    return yaml.safe_load(head.partition("\n\n")[2]), shlex.split(command)


def test_the_definition_has_no_findings() -> None:
    assert lint(HARNESS) == []


def test_ls_lists_the_three_tasks_of_the_document(environment: PublishedEnvironment) -> None:
    done = environment.run("nemo-evaluator", "ls", variables={"NEMO_EVALUATOR_HARNESS_PATH": str(HARNESS)})

    assert done.stdout == "scicode: \n  * scicode\n  * scicode_aa_v2\n  * scicode_background\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("task", ["scicode", "scicode_aa_v2", "scicode_background"])
def test_a_task_asks_as_the_published_definition_does(environment: PublishedEnvironment, task: str) -> None:
    published, published_words = dry_run(environment, task)
    ours, words = dry_run(environment, task, **HERE)

    extra = ours["config"]["params"]["extra"]
    assert {name: extra.pop(name) for name in OURS}.keys() == OURS
    for document in (ours, published):
        document.pop("command")
    assert ours == published
    assert words[words.index("--") + 1 :] == published_words


def test_the_documented_dry_run_comes_out_but_for_what_the_readme_says(environment: PublishedEnvironment) -> None:
    documented = shlex.split(
        "scicode_eval --model my_model --url http://localhost:8000 --output-dir ./evaluation_results"
        " --log-dir ./evaluation_results/logs --temperature=0.0 --n-samples=3 --extra-params"
        " top_p=1e-05,timeout=60,max_tokens=4096,max_retries=2 --with-background --include-dev"
    )

    configuration, words = dry_run(environment, "aa_scicode", **HERE)

    assert configuration["config"]["params"] == {
        "limit_samples": None,
        "max_new_tokens": 4096,
        "max_retries": 2,
        "parallelism": None,
        "task": None,
        "temperature": 0.0,
        "request_timeout": 60,
        "top_p": 1e-05,
        "extra": {
            "with_background": True,
            "include_dev": True,
            "n_samples": 3,
            "eval_threads": None,
            "include_system_prompt": True,
            "regex_path": None,
            "prompt_template_type": None,
            "test_data": None,
            "test_data_url": None,
            "test_data_sha256": None,
            "max_failed_fraction": 0.1,
            "test_memory_mib": 8192,
        },
    }
    assert configuration["config"]["type"] == "aa_scicode"
    assert (configuration["framework_name"], configuration["pkg_name"]) == ("scicode", "scicode")
    assert configuration["target"]["api_endpoint"]["stream"] is False
    expected = [
        word.replace("./evaluation_results", "./evaluation_results/scicode_results", 1) for word in documented[6:7]
    ]
    expected = [*documented[:6], *expected, *documented[7:]]
    at = expected.index("--extra-params") + 1
    expected[at] += ",include_system_prompt=True"
    assert words[words.index("--") + 1 :] == expected
    assert words[:2] == ["python3", "$NEMO_EVALUATOR_HARNESS_FOLDER/run.py"]


def test_no_attempts_at_all_cannot_be_asked_for(environment: PublishedEnvironment, tmp_path: Path) -> None:
    done = environment.evaluate(
        *("--eval_type", "scicode", "--model_id", "m", "--model_type", "chat", "--model_url", "http://localhost:8000"),
        *("--output_dir", tmp_path, "--dry_run", "--overrides", "config.params.max_retries=0,config.params.top_p=null"),
        **HERE,
    )

    assert "timeout=60,max_tokens=2048,max_retries=1,include_system_prompt=True" in done.stdout
