from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.core.judged_definition import DEFINITION, PARSER

from nemo_evaluator import ApiEndpoint, EndpointType, EvaluationConfig, EvaluationTarget, evaluate
from nemo_evaluator.adapters.adapter_config import AdapterConfig, InterceptorConfig, UpstreamConfig
from nemo_evaluator.api.api_dataclasses import ConfigParams
from nemo_evaluator.cli.main import main
from nemo_evaluator.core.layers import run_config_layer
from nemo_evaluator.errors import DataError, EndpointError, MisconfigurationError, UsageError
from nemo_evaluator.testing import FakeEndpoint


@pytest.fixture(autouse=True)
def harness(add_harness: Callable[..., Path]) -> None:
    (add_harness("judged", DEFINITION).parent / "output.py").write_text(PARSER)


@pytest.fixture
def model() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(lambda request: f"answer to {request.prompt[-1]}", model_id="m") as endpoint:
        yield endpoint


@pytest.fixture
def judge() -> Iterator[FakeEndpoint]:
    """Finds the answers to 0 and 1 right."""
    with FakeEndpoint(lambda request: "right" if request.prompt[-1] in "01" else "wrong") as endpoint:
        yield endpoint


def run(
    folder: Path, model: FakeEndpoint, judge_url: str | None, *, replay: bool = False, **adapter: Any
) -> dict[str, Any]:
    """Run it; what `results.yml` says."""
    extra = {"judge": {"url": judge_url}} if judge_url else {}
    evaluate(
        EvaluationConfig(type="judged", output_dir=str(folder), params=ConfigParams(extra=extra)),
        EvaluationTarget(api_endpoint=ApiEndpoint(url=model.chat_url, type=EndpointType.CHAT, model_id="m")),
        adapter_cfg=AdapterConfig.model_validate(adapter),
        replay=replay,
    )
    results: dict[str, Any] = yaml.safe_load((folder / "results.yml").read_text())
    return results


def harness_s(folder: Path) -> dict[str, Any]:
    """What the harness was told, and found."""
    found: dict[str, Any] = json.loads((folder / "probe.json").read_text())
    return found


def accuracy(results: dict[str, Any]) -> float:
    value: float = results["results"]["tasks"]["judged"]["metrics"]["accuracy"]["scores"]["accuracy"]["value"]
    return value


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/chat/completions"])
def test_a_judge_s_requests_pass_the_proxy_whatever_its_url_looks_like(
    model: FakeEndpoint, judge: FakeEndpoint, tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = judge.url + path

    results = run(tmp_path, model, url, use_system_prompt=True, custom_system_prompt="Be brief.")

    assert accuracy(results) == pytest.approx(2 / 3)
    told = harness_s(tmp_path)
    assert told["judge"].startswith("http://127.0.0.1:")
    assert told["judge"].endswith(path)
    # One listener, and a secret path for each.
    assert told["judge"].split("/")[2] == told["url"].split("/")[2]
    assert told["judge"].split("/")[3] != told["url"].split("/")[3]
    assert [message["role"] for message in model.requests[-1].body["messages"]] == ["system", "user"]
    assert [message["role"] for message in judge.requests[-1].body["messages"]] == ["user"]
    assert "config.params.extra.judge.url go through the proxy too, as 'judge'" in caplog.text
    # Users and parsers see what was asked for.
    for name in ("results.yml", "run_config.yml"):
        assert yaml.safe_load((tmp_path / name).read_text())["config"]["params"]["extra"]["judge"]["url"] == url
        assert told["judge"] not in (tmp_path / name).read_text()
    assert url in results["command"]
    assert results["coverage"]["requests"]["sent"] == 3
    assert results["coverage"]["upstreams"]["judge"]["sent"] == 3
    assert results["provenance"]["upstreams"]["judge"]["endpoint"] == url
    assert "system_message" in results["provenance"]["proxy"]
    assert "system_message" not in results["provenance"]["upstreams"]["judge"]["proxy"]


def test_a_judge_that_is_switched_off_is_asked_by_the_harness_itself(
    model: FakeEndpoint, judge: FakeEndpoint, tmp_path: Path
) -> None:
    results = run(tmp_path, model, f"{judge.url}/v1", upstreams={"judge": False})

    assert harness_s(tmp_path)["judge"] == f"{judge.url}/v1"
    assert "upstreams" not in results["provenance"]
    assert "upstreams" not in results["coverage"]


def test_the_proxy_has_the_judge_s_key(model: FakeEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_OF_THE_JUDGE", "judge-s3cret")
    with FakeEndpoint("right", require_key="judge-s3cret") as judge:
        upstreams = {"judge": {"url": f"{judge.url}/v1", "api_key_name": "KEY_OF_THE_JUDGE"}}
        assert accuracy(run(tmp_path, model, None, upstreams=upstreams)) == 1

    assert model.requests[-1].headers.get("authorization") is None
    assert b"judge-s3cret" not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_judge_s_key_that_is_not_set_is_told_before_anything_is_asked(model: FakeEndpoint, tmp_path: Path) -> None:
    upstreams = {"judge": {"url": "http://judge/v1", "api_key_name": "NOT_SET_ANYWHERE"}}

    with pytest.raises(
        MisconfigurationError, match=r"NOT_SET_ANYWHERE \(adapter_config\.upstreams\.judge\.api_key_name"
    ):
        run(tmp_path, model, None, upstreams=upstreams)

    assert not (tmp_path / "probe.json").exists()


def test_a_secret_in_a_judge_s_url_is_in_no_file(model: FakeEndpoint, judge: FakeEndpoint, tmp_path: Path) -> None:
    results = run(tmp_path, model, f"{judge.url}/v1?api-key=s3cret")

    assert results["config"]["params"]["extra"]["judge"]["url"] == f"{judge.url}/v1?api-key=<redacted>"
    assert judge.count == 3
    assert b"s3cret" not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_a_judge_that_never_answers_well_makes_no_score(model: FakeEndpoint, tmp_path: Path) -> None:
    nothing = pytest.raises(EndpointError, match=r"requests to the endpoint 'judge' failed \(.*HTTP 500")
    with FakeEndpoint("right", faults=["500"]) as judge, nothing:
        run(tmp_path, model, f"{judge.url}/v1", upstreams={"judge": {"retry": False}})

    assert not (tmp_path / "results.yml").exists()


def test_a_run_goes_on_without_asking_model_or_judge_again(
    model: FakeEndpoint, judge: FakeEndpoint, tmp_path: Path
) -> None:
    first = run(tmp_path, model, f"{judge.url}/v1")
    asked = (model.count, judge.count)

    second = run(tmp_path, model, f"{judge.url}/v1")

    assert accuracy(second) == accuracy(first)
    assert judge.count == asked[1]
    # The preflight asks.
    assert model.count - asked[0] <= 1
    assert second["coverage"]["upstreams"]["judge"]["cached"] == 3


def test_a_replay_asks_nobody(tmp_path: Path, model: FakeEndpoint) -> None:
    with FakeEndpoint("right") as judge:
        first = run(tmp_path, model, f"{judge.url}/v1", upstreams={"judge": {"api_key_name": "HOME"}})
    asked = model.count

    # The judge is gone, its key is not needed, and the model is not even looked at.
    second = run(tmp_path, model, f"{judge.url}/v1", upstreams={"judge": {"api_key_name": "NOT_SET"}}, replay=True)

    assert accuracy(second) == accuracy(first)
    assert model.count == asked
    assert second["coverage"]["requests"]["cached"] == second["coverage"]["requests"]["sent"] == 3
    assert second["coverage"]["requests"]["exchanges"] == 0


def test_a_replay_finds_what_the_first_run_found_elsewhere(
    tmp_path: Path, model: FakeEndpoint, judge: FakeEndpoint
) -> None:
    arguments = [
        "run_eval", "--eval_type", "judged", "--model_id", "m", "--model_type", "chat",
        "--model_url", f"{model.url}/v1", "--output_dir", str(tmp_path),
        "--overrides", f"config.params.extra.judge.url={judge.url}/v1",
    ]  # fmt: skip
    assert main(arguments) == 0
    asked = (model.count, judge.count)

    assert main([*arguments, "--replay"]) == 0

    assert (model.count, judge.count) == asked


def test_a_replay_without_an_answer_fails(
    tmp_path: Path, model: FakeEndpoint, judge: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, model, f"{judge.url}/v1")
    found = {name: (tmp_path / name).read_bytes() for name in ("results.yml", "report.html")}
    asked = (model.count, judge.count)
    monkeypatch.setenv("QUESTION", "another question")

    with pytest.raises(DataError):
        run(tmp_path, model, f"{judge.url}/v1", replay=True)

    assert (model.count, judge.count) == asked
    # It found nothing that could stand in the place of what the run found.
    assert {name: (tmp_path / name).read_bytes() for name in found} == found


def test_a_replay_of_nothing_leaves_nothing_behind(tmp_path: Path, model: FakeEndpoint) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(MisconfigurationError, match=r"there is none: .*requests\.db does not exist"):
            run(folder, model, None, replay=True)

    assert not (tmp_path / "missing").exists()
    assert list((tmp_path / "empty").iterdir()) == []
    assert model.count == 0


def test_a_port_in_use_is_told_before_anything_is_asked_or_made(tmp_path: Path, model: FakeEndpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MisconfigurationError, match=f"metrics_port: 127.0.0.1:{port} cannot be listened on"):
            run(tmp_path / "out", model, None, metrics_port=port)

    assert model.count == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("adapter", [{"use_caching": False}, {"interceptors": ["reasoning"]}])
def test_a_replay_needs_a_store_that_answers(tmp_path: Path, model: FakeEndpoint, adapter: dict[str, Any]) -> None:
    with pytest.raises(MisconfigurationError, match="the chain of the endpoint 'model' has none: "):
        run(tmp_path, model, None, replay=True, **adapter)


def test_a_configuration_counts_attribute_by_attribute(
    tmp_path: Path, model: FakeEndpoint, judge: FakeEndpoint
) -> None:
    adapter = AdapterConfig()
    added = {"params_to_add": {"user": "x", "seed": None}}
    adapter.interceptors.append(InterceptorConfig(name="payload_modifier", config=added))
    adapter.upstreams["judge"] = UpstreamConfig(url=f"{judge.url}/v1")
    adapter.upstreams["judge"].params_to_add = {"user": "y"}
    endpoint = ApiEndpoint(url=model.chat_url, type=EndpointType.CHAT, model_id="m", adapter_config=adapter)

    evaluate(EvaluationConfig(type="judged", output_dir=str(tmp_path)), EvaluationTarget(api_endpoint=endpoint))

    assert model.requests[-1].body["user"] == "x"
    assert model.requests[-1].body["seed"] is None
    assert judge.requests[-1].body["user"] == "y"


OWN = """
from pydantic import BaseModel
from nemo_evaluator.adapters import register_for_adapter

@register_for_adapter(name="stamp", description="Stamps requests.")
class Stamp:
    class Params(BaseModel):
        text: str

    def __init__(self, params, context):
        self.text = f"{params.text} {context.name}"

    async def __call__(self, request, call_next):
        body = request.json()
        request.replace_json({**body, "user": self.text})
        return await call_next(request)
"""


def test_a_third_party_s_interceptor_takes_part_and_is_named(
    tmp_path: Path, model: FakeEndpoint, judge: FakeEndpoint
) -> None:
    file = tmp_path / "own" / "stamp.py"
    file.parent.mkdir()
    file.write_text(OWN)
    stamp = [{"name": "stamp", "config": {"text": "seen by"}}]

    results = run(
        tmp_path / "run",
        model,
        f"{judge.url}/v1",
        interceptors=stamp,
        discovery={"dirs": [str(file.parent)]},
        upstreams={"judge": {"interceptors": stamp}},
    )

    assert model.requests[-1].body["user"] == "seen by model"
    assert judge.requests[-1].body["user"] == "seen by judge"
    (named,) = results["provenance"]["interceptors"]
    assert (named["name"], named["file"], len(named["sha256"])) == ("stamp", str(file), 64)


def test_a_dry_run_shows_the_chains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stamp.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    adapter = (
        "{interceptors: [retry, caching, {name: stamp, config: {text: x}},"
        " {name: payload_modifier, config: {headers_to_add: {X-Gateway: s3cret}}}], discovery: {dirs: [.]}}"
    )
    arguments = [
        "run_eval", "--eval_type", "judged", "--model_id", "m", "--model_type", "chat", "--dry_run",
        "--model_url", "http://m/v1/chat/completions", "--output_dir", "out", "--overrides",
        f"config.params.extra.judge.url='http://j/v1?key=s3cret',target.api_endpoint.adapter_config={adapter}",
    ]  # fmt: skip

    assert main(arguments) == 0

    captured = capsys.readouterr()
    assert "s3cret" not in captured.out + captured.err
    command = captured.out.partition("\n\nRendered command:\n\n")[2]
    chains = captured.err.partition("\nAdapter chain: ")[2]
    assert "--judge 'http://j/v1?key=<redacted>'" in command
    lines = [line.split() for line in chains.splitlines()[1:]]
    assert [line[:2] for line in lines if line] == [
        ["model", "http://m/v1/chat/completions"],
        ["harness", "stamp"],
        ["harness", "payload_modifier"],
        ["store", "caching"],
        ["transport", "retry"],
        ["endpoint"],
        ["judge", "http://j/v1?key=<redacted>"],
        ["harness", "response_stats"],
        ["harness", "finish_reason"],
        ["store", "caching"],
        ["transport", "retry"],
        ["transport", "concurrency"],
        ["endpoint"],
    ]
    assert str(tmp_path / "stamp.py") in chains
    assert not (tmp_path / "out").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["harnesses", "stamp.py"]


IN_ENVIRONMENT = {"from_env": {"X-Tenant": "TENANT"}, "set": {"X-Gateway-Key": {"env": "GATEWAY_KEY"}}}


@pytest.mark.parametrize("link", ["payload_modifier", "headers"])
def test_a_run_goes_on_with_another_key_but_not_with_another_hidden_header(
    tmp_path: Path, model: FakeEndpoint, judge: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    def start(tenant: str, key: str) -> None:
        monkeypatch.setenv("TENANT", tenant)
        monkeypatch.setenv("GATEWAY_KEY", key)
        added = {"X-Tenant": tenant, "X-Gateway-Key": key}
        adapter: dict[str, Any] = {"headers": IN_ENVIRONMENT} if link == "headers" else {"headers_to_add": added}
        run(tmp_path, model, f"{judge.url}/v1", **adapter)

    start("tenant-one", "gateway-s3cret-1")
    asked = model.count
    start("tenant-one", "gateway-s3cret-2")
    # The preflight asks.
    assert model.count - asked <= 1

    with pytest.raises(UsageError, match="the header 'X-Tenant' has another value"):
        start("tenant-two", "gateway-s3cret-2")

    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert not [word for word in (b"tenant-one", b"tenant-two", b"s3cret") if word in written]


def test_a_run_goes_on_with_the_same_code_of_an_interceptor_only(
    tmp_path: Path, model: FakeEndpoint, judge: FakeEndpoint
) -> None:
    (tmp_path / "links").mkdir()
    file = tmp_path / "links" / "theirs.py"
    code = (
        "from nemo_evaluator.adapters import register_for_adapter\n"
        "@register_for_adapter('theirs')\n"
        "async def pass_on(request, call_next):\n    return await call_next(request)\n"
    )

    def start() -> dict[str, Any]:
        adapter: dict[str, Any] = {
            "interceptors": ["caching", "theirs"],
            "discovery": {"dirs": [str(tmp_path / "links")]},
        }
        return run(tmp_path / "out", model, f"{judge.url}/v1", **adapter)

    file.write_text(code)
    first = start()
    assert start()["results"] == first["results"]
    file.write_text(f"{code}# something else\n")

    with pytest.raises(UsageError, match="the code of the interceptor 'theirs' is not that of the run"):
        start()

    # What was written is a configuration all the same.
    layer = run_config_layer(yaml.safe_load((tmp_path / "out" / "run_config.yml").read_text()), source="run_config.yml")
    assert layer.values["fingerprint"]["code"].keys() == {"theirs"}
