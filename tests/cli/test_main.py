from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import nemo_evaluator
from nemo_evaluator import env
from nemo_evaluator.cli.main import main

AddHarness = Callable[..., Path]


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    without_arguments = capsys.readouterr().out
    assert main(["--help"]) == 0

    assert capsys.readouterr().out == without_arguments
    assert "--eval_type mmlu_pro" in without_arguments
    assert "130 Ctrl-C" in without_arguments


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert nemo_evaluator.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lsx"], "No such command 'lsx'. Did you mean 'ls'?"),
        (["ls", "--nothing"], "--nothing"),
        (["run_eval", "--model_type", "speech"], "'speech' is not one of"),
        (["run_eval", "--run_config", "/nowhere.yml"], "/nowhere.yml: cannot be read: No such file"),
        (["run_eval"], "Missing required argument: config.type (cli: --eval_type)"),
        (["run_eval", "--self_test"], "no self-test is declared"),
        (["lint", "/nowhere"], "no framework.yml"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2

    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


def test_debug_shows_the_traceback_and_keeps_the_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nemo_evaluator", "--debug", "run_eval", "--run_config", "/nowhere.yml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "MisconfigurationError" in done.stderr


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "| true"])
def test_closed_streams_do_not_matter(add_harness: AddHarness, redirection: str) -> None:
    add_harness("made")
    command = f"set -o pipefail; {sys.executable} -m nemo_evaluator ls -v {redirection}"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize(
    "text", ["harness: [a]\n", "harness: {data: 5}\n", "harness: {licence: 2024-01-01, data: [{.nan: .inf}]}\n"]
)
def test_an_odd_definition_does_not_disable_the_others(
    add_harness: AddHarness, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    add_harness("made")
    add_harness("odd", add_harness("draft").read_text().replace("name: draft", "name: odd") + text)

    assert main(["ls", "--json"]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert "made" in [framework["name"] for framework in found["frameworks"]]


def test_a_reader_that_leaves_is_no_error(add_harness: AddHarness) -> None:
    for number in range(300):
        add_harness(f"made{number}")
    command = f"{sys.executable} -m nemo_evaluator ls --json | head -n 1; echo ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["{", "0"]
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert "_NEMO_EVALUATOR_COMPLETE" in capsys.readouterr().out


def test_listing_is_light(add_harness: AddHarness) -> None:
    add_harness("made")
    code = (
        "import sys; from nemo_evaluator.cli.main import main; code = main(['ls']);"
        "print(sorted({'pydantic', 'jinja2', 'aiohttp', 'rich', 'huggingface_hub', 'psutil'} & set(sys.modules)), code)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)

    assert done.stdout.splitlines()[-1] == "[] 0"


_WATCH = """
import sys
touched = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir", "os.rename", "os.remove", "os.exec"):
        touched.append((event, repr(arguments)))
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        touched.append((event, repr(arguments)))
sys.addaudithook(watch)
from nemo_evaluator.cli.main import main
code = main(sys.argv[1:])
sys.stderr.write(repr(touched))
sys.exit(code)
"""


def test_a_dry_run_opens_no_socket_and_makes_no_file(add_harness: AddHarness, tmp_path: Path) -> None:
    add_harness("made")
    arguments = [
        "run_eval", "--eval_type", "first", "--model_id", "m", "--model_type", "chat", "--dry_run",
        "--model_url", "http://localhost:1/v1/chat/completions", "--output_dir", str(tmp_path / "out"),
    ]  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-B", "-c", _WATCH, *arguments], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert done.stderr.endswith("\n[]")
    assert "made-eval --task first_task" in done.stdout


def test_ls_has_the_compatible_form(add_harness: AddHarness, capsys: pytest.CaptureFixture[str]) -> None:
    add_harness("made")
    add_harness("twin")

    assert main(["ls"]) == 0

    assert capsys.readouterr().out == "made: \n  * first\n  * second\ntwin: \n  * first\n  * second\n"


def test_ls_without_harnesses(harnesses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert harnesses.is_dir()
    assert main(["ls"]) == 0

    captured = capsys.readouterr()
    assert captured.out == "NO evaluation packages are installed.\n"
    assert env.HARNESS_PATH in captured.err
    assert main(["run_eval", "--eval_type", "mmlu_pro"]) == 2
    assert env.HARNESS_PATH in capsys.readouterr().err


def test_ls_reports_a_broken_definition_and_lists_the_rest(
    add_harness: AddHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    add_harness("made")
    add_harness("bad", "framework: {}\n")

    assert main(["ls"]) == 0

    captured = capsys.readouterr()
    assert captured.out.startswith("made: \n")
    assert "bad/framework.yml:1: framework.name is required" in captured.err


def test_ls_json_tells_everything(add_harness: AddHarness, capsys: pytest.CaptureFixture[str]) -> None:
    add_harness("made")

    assert main(["ls", "--json"]) == 0

    [framework] = json.loads(capsys.readouterr().out)["frameworks"]
    assert framework["name"] == "made"
    first = framework["tasks"][0]
    assert first["endpoint_types"] == ["chat", "completions"]
    assert first["params"]["temperature"] == 0.5
    assert first["description"] == "The first task."


def test_ls_verbose_is_tab_separated_in_pipes(add_harness: AddHarness, capsys: pytest.CaptureFixture[str]) -> None:
    add_harness("made")

    assert main(["ls", "-v"]) == 0

    assert capsys.readouterr().out.splitlines()[0] == "made\tfirst\tchat, completions\tThe first task."


def test_lint_prints_findings_and_the_code_tells(add_harness: AddHarness, capsys: pytest.CaptureFixture[str]) -> None:
    file = add_harness("made")
    assert main(["lint", str(file)]) == 0
    assert "No errors, 1 warning(s)." in capsys.readouterr().out
    file.write_text(file.read_text().replace("temperature: 0.5", "temperature: hot"))
    assert main(["lint", "--json", str(file)]) == 2

    findings = json.loads(capsys.readouterr().out)
    assert [finding["severity"] for finding in findings] == ["error"]
    assert "defaults.config.params.temperature" in findings[0]["message"]


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["required"] == ["framework", "defaults", "evaluations"]
