from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.core.probe import PARSER, PROBE, probe_definition

from nemo_evaluator import ApiEndpoint, ConfigParams, EndpointType, EvaluationConfig, EvaluationTarget, evaluate
from nemo_evaluator.adapters.adapter_config import AdapterConfig, InterceptorConfig
from nemo_evaluator.api.api_dataclasses import EvaluationResult
from nemo_evaluator.cli.main import main
from nemo_evaluator.errors import EndpointError, HarnessError, MisconfigurationError, ResultsError, UsageError
from nemo_evaluator.testing import FakeEndpoint

DEFINITION = probe_definition(
    before=(
        "{% if target.api_endpoint.api_key_name is not none %} export API_KEY=${{target.api_endpoint.api_key_name}} && "
        "{% endif %}"
    ),
    after="{{config.params.extra.args}}",
    params='{request_timeout: 30, extra: {n: 4, args: ""}}',
)


@pytest.fixture(autouse=True)
def probe(add_harness: Callable[..., Path]) -> None:
    file = add_harness("probe", DEFINITION)
    (file.parent / "output.py").write_text(PARSER)


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    """Answers yes to questions 0, 1 and 2, no to the others."""
    with FakeEndpoint(lambda request: "yes" if request.prompt[-1] in "012" else "no", model_id="m") as endpoint:
        yield endpoint


def target(endpoint: FakeEndpoint, **fields: str) -> EvaluationTarget:
    return EvaluationTarget(
        api_endpoint=ApiEndpoint.model_validate(
            {"url": endpoint.chat_url, "type": EndpointType.CHAT, "model_id": "m", **fields}
        )
    )


def config(folder: Path, args: str = "", **params: object) -> EvaluationConfig:
    extra = {"args": args} if args else {}
    return EvaluationConfig(
        type="probe", output_dir=str(folder), params=ConfigParams.model_validate({"extra": extra, **params})
    )


AS_SENT = AdapterConfig(retry=False)
"""Every answer of the endpoint reaches the harness, the bad ones too."""


def value(result: EvaluationResult) -> float:
    assert result.tasks is not None
    return result.tasks["probe"].metrics["accuracy"].scores["accuracy"].value


def test_the_score_is_what_the_answers_imply(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    result = evaluate(eval_cfg=config(tmp_path / "run"), target_cfg=target(endpoint))

    assert value(result) == 0.75


def test_the_files_of_a_run(endpoint: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORE_EVALS_GIT_HASH", "abc123")

    evaluate(config(tmp_path), target(endpoint), metadata={"versioning": {"mine": "1"}, "note": "x"})

    results = yaml.safe_load((tmp_path / "results.yml").read_text())
    assert results["results"]["tasks"]["probe"]["metrics"]["accuracy"]["scores"]["accuracy"]["value"] == 0.75
    assert results["git_hash"] == "abc123"
    assert results["command"].split()[1:3] == [str(PROBE), "--url"]
    assert endpoint.chat_url in results["command"]
    assert results["target"]["api_endpoint"]["url"] == endpoint.chat_url
    requests = results["coverage"]["requests"]
    assert (requests["sent"], requests["answered"], requests["exchanges"]) == (4, 4, 4)
    assert {name for name, count in requests.items() if count == 0} >= {"failed", "unusable", "truncated", "refused"}
    assert results["provenance"]["framework"] == "probe"
    assert len(results["provenance"]["config_sha256"]) == 64
    assert results["metadata"]["versioning"] == {"mine": "1", "git-hash": "abc123", "nemo_evaluator": "0.10.0"}
    assert yaml.safe_load((tmp_path / "metadata.yaml").read_text())["note"] == "x"
    run_config = yaml.safe_load((tmp_path / "run_config.yml").read_text())
    assert list(run_config) == ["command", "config", "framework_name", "pkg_name", "target"]
    assert run_config["config"]["type"] == "probe"
    metrics = json.loads((tmp_path / "eval_factory_metrics.json").read_text())
    assert metrics["response_stats"]["count"] == 4
    assert metrics["evaluation"]["runtime_seconds"] > 0
    assert "asking m" in (tmp_path / "logs" / "harness.log").read_text()


def test_the_harness_talks_to_the_proxy_alone(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    evaluate(config(tmp_path), target(endpoint))

    argv = json.loads((tmp_path / "probe.json").read_text())["argv"]
    assert argv[1].startswith("http://127.0.0.1:")
    assert argv[1] != endpoint.chat_url
    assert argv[1].endswith("/v1/chat/completions")
    assert argv[1] not in (tmp_path / "results.yml").read_text()


def test_the_adapter_configuration_acts(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    adapter = AdapterConfig(interceptors=[InterceptorConfig(name="system_message", config={"system_message": "Be."})])

    evaluate(target_cfg=target(endpoint), eval_cfg=config(tmp_path), adapter_cfg=adapter)

    messages = endpoint.requests[-1].body["messages"]
    assert messages[0] == {"role": "system", "content": "Be."}
    results = yaml.safe_load((tmp_path / "results.yml").read_text())
    assert "system_message" in results["provenance"]["proxy"]


def test_the_configurations_may_come_in_either_order(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    assert value(evaluate(target(endpoint), config(tmp_path), AdapterConfig())) == 0.75


def test_it_works_in_any_thread(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    results: dict[int, float] = {}

    def work(number: int) -> None:
        results[number] = value(evaluate(config(tmp_path / str(number)), target(endpoint)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {0: 0.75, 1: 0.75, 2: 0.75}


def test_the_key_reaches_the_endpoint_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "sk-\"quoted'$(x)`y`"
    monkeypatch.setenv("MY_KEY", secret)
    with FakeEndpoint("yes", model_id="m", require_key=secret) as endpoint:
        evaluate(config(tmp_path), target(endpoint, api_key="MY_KEY"))

    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    captured = capfd.readouterr()
    assert b"MY_KEY" in written
    assert secret.encode() not in written
    assert secret not in captured.out + captured.err


def test_a_secret_in_the_url_s_query_is_in_no_file(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    url = f"{endpoint.chat_url}?api-version=2&api-key=s3cret"

    assert value(evaluate(config(tmp_path), target(endpoint, url=url))) == 0.75

    assert "api-version=2&api-key=<redacted>" in (tmp_path / "results.yml").read_text()
    assert b"s3cret" not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_run_in_which_every_request_failed_has_no_score(tmp_path: Path) -> None:
    everything_failed = pytest.raises(EndpointError, match=r"all 4 requests to the endpoint failed .*HTTP 500")
    with FakeEndpoint("yes", model_id="m", faults=["500"]) as endpoint, everything_failed:
        evaluate(config(tmp_path), target(endpoint), AS_SENT)

    assert not (tmp_path / "results.yml").exists()
    assert (tmp_path / "eval_factory_metrics.json").exists()


@pytest.mark.parametrize("fault", ["html", "malformed_json", "empty", "no_choices", "error_body"])
def test_a_run_in_which_no_answer_can_be_used_has_no_score(tmp_path: Path, fault: str) -> None:
    nothing_usable = pytest.raises(
        EndpointError, match=r"(?s)all 4 requests .*4 x HTTP 200.*Every answer .*is not usable.*Seen: 200: no usable"
    )
    # The first request is the preflight's.
    with FakeEndpoint("yes", model_id="m", faults=[f"{fault},at=1+2+3+4"]) as endpoint, nothing_usable:
        evaluate(config(tmp_path), target(endpoint), AS_SENT)

    assert not (tmp_path / "results.yml").exists()


def test_answers_that_cannot_be_used_are_shown_as_failed(tmp_path: Path) -> None:
    with FakeEndpoint("yes", model_id="m", faults=["html,at=1+3"]) as endpoint:
        evaluate(config(tmp_path), target(endpoint), AS_SENT)

    requests = yaml.safe_load((tmp_path / "results.yml").read_text())["coverage"]["requests"]
    assert requests["sent"] == 4
    assert requests["failed"] == requests["unusable"] == requests["answered"] == 2


def test_failed_requests_are_shown(tmp_path: Path) -> None:
    with FakeEndpoint("yes", model_id="m", faults=["500,every=2"]) as endpoint:
        evaluate(config(tmp_path), target(endpoint), AS_SENT)

    requests = yaml.safe_load((tmp_path / "results.yml").read_text())["coverage"]["requests"]
    assert requests["failed"] + requests["answered"] == requests["sent"] == 4
    assert requests["failed"] > 0


def test_a_failing_harness_is_an_error_with_its_last_lines(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"(?s)the harness probe failed with exit code 3.*asking m"):
        evaluate(config(tmp_path, "--exit 3"), target(endpoint))

    assert not (tmp_path / "results.yml").exists()


def test_a_failing_rerun_does_not_leave_the_former_results_in_place(
    endpoint: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(config(tmp_path), target(endpoint))
    monkeypatch.setenv("PROBE_EXIT", "3")

    with pytest.raises(HarnessError):
        evaluate(config(tmp_path), target(endpoint))

    assert not (tmp_path / "results.yml").exists()
    assert (tmp_path / "results.previous.yml").exists()


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_score_that_is_no_number_fails_the_run(endpoint: FakeEndpoint, tmp_path: Path, number: str) -> None:
    with pytest.raises(ResultsError, match="task 'probe', metric 'accuracy'"):
        evaluate(config(tmp_path, f"--value {number}"), target(endpoint))

    assert not (tmp_path / "results.yml").exists()


def test_the_time_limit_ends_the_harness(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"config\.params\.time_limit"):
        evaluate(config(tmp_path, "--sleep 60", time_limit=1), target(endpoint))


def test_hostile_values_arrive_as_their_text(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    folder = tmp_path / "a b'c;$(touch x)"
    model = 'm $(touch x) `touch x` "q" {{ 7*7 }}\n;'
    hostile = target(endpoint)
    assert hostile.api_endpoint is not None
    hostile.api_endpoint.model_id = model

    evaluate(config(folder), hostile)

    argv = json.loads((folder / "probe.json").read_text())["argv"]
    assert argv[3] == model
    assert endpoint.requests[-1].body["model"] == model


def test_a_second_run_in_the_same_folder_is_refused(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    first = threading.Thread(target=evaluate, args=(config(tmp_path, "--sleep 3"), target(endpoint)))
    first.start()
    while not (tmp_path / "asked").exists():
        time.sleep(0.02)

    with pytest.raises(UsageError, match=str(os.getpid())):
        evaluate(config(tmp_path), target(endpoint))

    first.join()
    assert (tmp_path / "results.yml").exists()


def test_nothing_is_made_when_the_configuration_is_wrong(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    with pytest.raises(MisconfigurationError, match="no_such"):
        evaluate(config(folder), target(endpoint), adapter_cfg=AdapterConfig(interceptors=["no_such"]))  # type: ignore[list-item]  # the short form

    assert not folder.exists()
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"temperature": 0.5}, r"config\.params\.temperature was None and is 0\.5"),
        ({"extra": {"n": 2}}, r"config\.params\.extra\.n was 4 and is 2"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    endpoint: FakeEndpoint, tmp_path: Path, change: dict[str, object], place: str
) -> None:
    evaluate(config(tmp_path), target(endpoint))
    asked = endpoint.count

    with pytest.raises(UsageError, match=place):
        evaluate(
            EvaluationConfig(type="probe", output_dir=str(tmp_path), params=ConfigParams.model_validate(change)),
            target(endpoint),
        )

    assert endpoint.count == asked
    assert (tmp_path / "results.yml").exists()


def test_another_model_s_run_does_not_go_on_in_the_folder(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    evaluate(config(tmp_path), target(endpoint))

    with pytest.raises(UsageError, match=r"target\.api_endpoint\.model_id was 'm' and is 'other'"):
        evaluate(config(tmp_path), target(endpoint, model_id="other"))


def test_what_changes_no_answer_may_change(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    evaluate(config(tmp_path), target(endpoint))

    assert value(evaluate(config(tmp_path, parallelism=7, limit_samples=3), target(endpoint))) == 0.75


def test_notices_are_logged(endpoint: FakeEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(config(tmp_path, top_p=0.5), target(endpoint))

    assert "config.params.top_p has no effect" in caplog.text


def test_a_parser_that_leaves_the_process_has_no_results(
    endpoint: FakeEndpoint, tmp_path: Path, harnesses: Path
) -> None:
    (harnesses / "probe" / "output.py").write_text("def parse_output(output_dir):\n    raise SystemExit(0)\n")

    with pytest.raises(ResultsError, match="SystemExit"):
        evaluate(config(tmp_path), target(endpoint))


def run_eval(endpoint: FakeEndpoint, folder: Path, *more: str) -> list[str]:
    return [
        "run_eval", "--eval_type", "probe", "--model_id", "m", "--model_type", "chat",
        "--model_url", endpoint.chat_url, "--output_dir", str(folder), *more,
    ]  # fmt: skip


def test_the_command_line_ends_with_scores_and_coverage(
    endpoint: FakeEndpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(run_eval(endpoint, tmp_path)) == 0

    lines = capfd.readouterr().out.splitlines()
    assert "asking m" in lines
    assert "probe  accuracy  0.75  n=4" in lines
    assert "Requests: 4 of 4 answered" in lines
    assert f"Results: {tmp_path / 'results.yml'}" in lines


def test_json_keeps_standard_output_clean(
    endpoint: FakeEndpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(run_eval(endpoint, tmp_path, "--json")) == 0

    found = json.loads(capfd.readouterr().out)
    assert found["results"]["tasks"]["probe"]["metrics"]["accuracy"]["scores"]["accuracy"]["value"] == 0.75


def test_a_parser_s_words_do_not_mix_with_the_json(
    endpoint: FakeEndpoint, tmp_path: Path, harnesses: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = harnesses / "probe" / "output.py"
    file.write_text(file.read_text().replace("    found =", "    print('words')\n    found ="))

    assert main(run_eval(endpoint, tmp_path, "--json")) == 0

    captured = capfd.readouterr()
    assert json.loads(captured.out)["coverage"]["requests"]["sent"] == 4
    assert "words" in captured.err


def test_a_dry_run_shows_no_secret_of_the_url(
    endpoint: FakeEndpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = run_eval(endpoint, tmp_path, "--dry_run")
    arguments[arguments.index(endpoint.chat_url)] = f"{endpoint.chat_url}?api_key=s3cret"

    assert main(arguments) == 0

    assert "s3cret" not in "".join(capfd.readouterr())


def test_a_dry_run_has_the_documented_shape_and_makes_nothing(
    endpoint: FakeEndpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    assert main(run_eval(endpoint, folder, "--dry_run")) == 0

    head, text, command = capfd.readouterr().out.partition("\n\n\nRendered command:\n\n")[0:3]
    assert head.startswith("Rendered config:\n\ncommand: ")
    assert text
    document = yaml.safe_load(head.removeprefix("Rendered config:\n\n"))
    assert list(document) == ["command", "framework_name", "pkg_name", "config", "target"]
    assert endpoint.chat_url in command
    assert not folder.exists()
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--overrides", "config.params.extra.args='--exit 9'"], 4),
        (["--overrides", "config.params.extra.args='--value nan'"], 5),
        (["--overrides", "config.params.temperature=-1"], 2),
        (["--api_key_name", "NOT_SET_ANYWHERE"], 2),
    ],
)
def test_exit_codes(endpoint: FakeEndpoint, tmp_path: Path, arguments: list[str], code: int) -> None:
    assert main(run_eval(endpoint, tmp_path, *arguments)) == code


def test_an_endpoint_that_is_not_there_ends_with_3(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    arguments = run_eval(endpoint, tmp_path)
    arguments[arguments.index(endpoint.chat_url)] = "http://127.0.0.1:9/v1/chat/completions"

    never_wait = "target.api_endpoint.adapter_config.retry=false"
    assert main([*arguments, "--no_preflight", "--overrides", never_wait]) == 3


def test_nothing_is_writable_for_others_whatever_the_umask(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "nemo_evaluator", *run_eval(endpoint, folder)]

    subprocess.run(["bash", "-c", 'umask 000; exec "$@"', "bash", *command], check=True, capture_output=True)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert [file for file in folder.rglob("*") if file.stat().st_mode & 0o022] == []


def test_a_command_that_cannot_be_rendered_makes_nothing(
    endpoint: FakeEndpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    assert main(run_eval(endpoint, folder, "--overrides", "config.params.extra.args='it''s'")) == 2

    assert "no closing quotation" in capfd.readouterr().err
    assert not folder.exists()
    assert endpoint.requests == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_whole_tree_and_the_same_command_goes_on(
    endpoint: FakeEndpoint, tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nemo_evaluator", *run_eval(endpoint, tmp_path)],
        env={**os.environ, "PROBE_SLEEP": "60"},
    )
    while not (tmp_path / "asked").exists():
        assert process.poll() is None
        time.sleep(0.02)

    process.send_signal(number)

    assert process.wait(timeout=8) == 128 + number
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], check=False, capture_output=True).stdout == b""
    assert not (tmp_path / "results.yml").exists()
    assert main(run_eval(endpoint, tmp_path)) == 0
