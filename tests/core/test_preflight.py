from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemo_evaluator.api.adapter_config import AdapterConfig
from nemo_evaluator.api.api_dataclasses import Evaluation
from nemo_evaluator.core.preflight import Preflight, check
from nemo_evaluator.core.stop_signal import StopSignal
from nemo_evaluator.errors import DataError, EndpointError, InterruptedRun, MisconfigurationError
from nemo_evaluator.testing import FakeEndpoint

KEY = "top-secret-value"
PATH = {"PATH": "/usr/bin:/bin"}


def evaluation(url: str | None, endpoint_type: str | None = "chat", **settings: Any) -> Evaluation:
    endpoint = {"url": url, "type": endpoint_type, "model_id": settings.pop("model_id", "fake-model")}
    endpoint["api_key_name"] = settings.pop("api_key_name", None)
    return Evaluation.model_validate(
        {
            "command": "true",
            "framework_name": "f",
            "pkg_name": "f",
            "config": settings,
            "target": {"api_endpoint": endpoint},
        }
    )


class Checker:
    """Calls `check` and keeps what the user was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []

    def __call__(self, evaluation: Evaluation, **options: Any) -> Preflight:
        defaults = {"environ": PATH, "data_check": None, "output_dir": self.folder, "wait": 0.0}
        return check(evaluation, notify=self.told.append, **{**defaults, **options})


@pytest.fixture
def checker(tmp_path: Path) -> Checker:
    return Checker(tmp_path / "out")


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint() as endpoint:
        yield endpoint


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("endpoint_type", "path"),
    [
        ("chat", "/v1/chat/completions"),
        ("vlm", "/v1/chat/completions"),
        ("completions", "/v1/completions"),
        ("completions_logprob", "/v1/completions"),
        ("embedding", "/v1/embeddings"),
    ],
)
def test_good_endpoint_passes(checker: Checker, endpoint: FakeEndpoint, endpoint_type: str, path: str) -> None:
    found = checker(evaluation(endpoint.url + path, endpoint_type))
    assert found.effective_url == endpoint.url + path
    assert checker.told == []
    assert endpoint.count <= 2
    assert checker.folder.is_dir()


def test_type_that_is_not_declared_needs_only_an_answer(checker: Checker, endpoint: FakeEndpoint) -> None:
    assert checker(evaluation(endpoint.chat_url, None)).effective_url == endpoint.chat_url
    assert endpoint.count == 0


def test_evaluation_without_endpoint_passes(checker: Checker) -> None:
    assert checker(evaluation(None)).effective_url == ""


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "KEY_VARIABLE .* is not set"),
        ({"KEY_VARIABLE": ""}, "KEY_VARIABLE .* is empty"),
        ({"KEY_VARIABLE": KEY + "\nx"}, "KEY_VARIABLE .* holds a line break"),
        ({"KEY_VARIABLE": KEY + "é"}, "characters that no key has"),
        ({"KEY_VARIABLE": f" {KEY}"}, "holds spaces at an end"),
    ],
)
def test_bad_key_is_refused_before_any_request_and_not_shown(
    checker: Checker, endpoint: FakeEndpoint, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(MisconfigurationError, match=message) as caught:
        checker(evaluation(endpoint.chat_url, api_key_name="KEY_VARIABLE"), environ=environ)
    assert KEY not in str(caught.value)
    assert endpoint.count == 0


def test_key_is_sent(checker: Checker) -> None:
    with FakeEndpoint(require_key=KEY) as endpoint:
        checker(evaluation(endpoint.chat_url, api_key_name="KEY_VARIABLE"), environ={"KEY_VARIABLE": KEY})
        assert endpoint.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_wrong_and_missing_key_are_told_apart(checker: Checker) -> None:
    with FakeEndpoint(require_key=KEY) as endpoint:
        with pytest.raises(EndpointError, match=r"refuses the key in the variable KEY_VARIABLE \(HTTP 401"):
            checker(evaluation(endpoint.chat_url, api_key_name="KEY_VARIABLE"), environ={"KEY_VARIABLE": "wrong"})
        with pytest.raises(EndpointError, match=r"wants an API key .*--api_key_name"):
            checker(evaluation(endpoint.chat_url))
        assert endpoint.count == 2


def test_nobody_listening_is_named(checker: Checker, unused_port: int) -> None:
    with pytest.raises(EndpointError, match=f"nothing listens on 127.0.0.1:{unused_port}"):
        checker(evaluation(f"http://127.0.0.1:{unused_port}/v1/chat/completions"))


def test_endpoint_that_comes_up_late_is_waited_for(checker: Checker, unused_port: int) -> None:
    late = FakeEndpoint(port=unused_port)
    timer = threading.Timer(0.7, late.start)
    timer.start()
    try:
        checker(evaluation(f"http://127.0.0.1:{unused_port}/v1/chat/completions"), wait=20.0)
    finally:
        timer.join()
        late.stop()
    assert len(checker.told) == 1
    assert f"127.0.0.1:{unused_port} (connection refused); waiting up to 20 s" in checker.told[0]


def test_stop_ends_the_waiting(checker: Checker, unused_port: int) -> None:
    stop = StopSignal()
    timer = threading.Timer(0.3, stop.request)
    timer.start()
    started = time.monotonic()
    with pytest.raises(InterruptedRun) as caught:
        checker(evaluation(f"http://127.0.0.1:{unused_port}/v1/chat/completions"), wait=600.0, stop=stop)
    timer.join()
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions/"])
def test_short_url_is_completed(checker: Checker, endpoint: FakeEndpoint, path: str) -> None:
    found = checker(evaluation(endpoint.url + path))
    assert found.effective_url == endpoint.chat_url
    assert found.notes == tuple(checker.told)
    assert checker.told[0].endswith(f"using {endpoint.chat_url}")


def test_wrong_path_is_said_with_what_was_tried(checker: Checker, endpoint: FakeEndpoint) -> None:
    with pytest.raises(EndpointError, match=r"there is no chat endpoint at .*/v2/chat/completions .*HTTP 404"):
        checker(evaluation(endpoint.url + "/v2/chat/completions"))


@pytest.mark.parametrize(
    ("declared", "path", "real"),
    [
        ("completions", "/v1/chat/completions", "chat"),
        ("chat", "/v1/completions", "completions"),
        ("chat", "/v1/embeddings", "embedding"),
        ("embedding", "/v1/chat/completions", "chat"),
    ],
)
def test_other_type_is_recognised(
    checker: Checker, endpoint: FakeEndpoint, declared: str, path: str, real: str
) -> None:
    with pytest.raises(EndpointError, match=f"{path} is a {real} endpoint, but {declared} is declared"):
        checker(evaluation(endpoint.url + path, declared))


def test_server_without_the_declared_type_names_the_one_it_has(checker: Checker) -> None:
    with (
        FakeEndpoint(routes=["chat"]) as endpoint,
        pytest.raises(EndpointError, match=r"There is a chat endpoint at .*/v1/chat/completions"),
    ):
        checker(evaluation(endpoint.completions_url, "completions"))


def test_wrong_model_is_said_with_those_that_are_there(checker: Checker) -> None:
    with (
        FakeEndpoint(model_id="llama-3.1-8b", strict_model=True) as endpoint,
        pytest.raises(EndpointError, match=r"does not serve the model 'llama-3.1-80b' .* it serves 'llama-3.1-8b'"),
    ):
        checker(evaluation(endpoint.chat_url, model_id="llama-3.1-80b"))


def test_busy_endpoint_is_only_told(checker: Checker) -> None:
    with FakeEndpoint(faults=["429,retry_after=0"]) as endpoint:
        checker(evaluation(endpoint.chat_url))
        assert endpoint.count == 3
    assert len(checker.told) == 1
    assert "cannot answer now (HTTP 429" in checker.told[0]


def test_passing_failure_is_not_even_told(checker: Checker) -> None:
    with FakeEndpoint(faults=["503,first=1,retry_after=0", "reset,at=1"]) as endpoint:
        checker(evaluation(endpoint.chat_url))
        assert endpoint.count == 3
    assert checker.told == []


def test_endpoint_that_hangs_is_given_up(checker: Checker) -> None:
    with (
        FakeEndpoint(faults=["hang"]) as endpoint,
        pytest.raises(EndpointError, match="accepted the connection but did not answer within 1 s"),
    ):
        checker(evaluation(endpoint.chat_url, params={"request_timeout": 1}))


def test_page_instead_of_an_endpoint_is_said(checker: Checker) -> None:
    with (
        FakeEndpoint(faults=["html"]) as endpoint,
        pytest.raises(EndpointError, match="answers, but not as a chat endpoint does: an HTML page"),
    ):
        checker(evaluation(endpoint.chat_url))


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://host:0/v1", "http:///v1"])
def test_unusable_url_is_a_mistake_of_the_configuration(checker: Checker, url: str) -> None:
    with pytest.raises(MisconfigurationError, match="the endpoint's URL must be like"):
        checker(evaluation(url))


@pytest.mark.parametrize("name", ["logprobs", "tools", "image_url", "image_url_with_detail", "multi_image_url"])
def test_required_capability_that_is_there(checker: Checker, endpoint: FakeEndpoint, name: str) -> None:
    found = checker(evaluation(endpoint.chat_url, required_capabilities=[name]))
    assert found.capabilities == {name: True}


@pytest.mark.parametrize(
    ("endpoint_type", "has", "required", "reason"),
    [
        ("completions_logprob", ["echo"], [], "logprobs=1 is ignored"),
        ("completions_logprob", ["logprobs"], [], "echo=true is ignored"),
        ("completions", ["logprobs"], ["logprobs"], "echo=true is ignored"),
        ("chat", [], ["logprobs"], "logprobs=true is ignored"),
        ("chat", ["logprobs"], ["tools"], r"tools .*HTTP 400"),
        ("vlm", ["logprobs"], ["multi_image_url"], r"multi_image_url .*HTTP 400"),
        ("completions", ["tools"], ["tools"], "needs a chat endpoint, not completions"),
    ],
)
def test_required_capability_that_is_missing(
    checker: Checker, endpoint_type: str, has: list[str], required: list[str], reason: str
) -> None:
    path = "completions" if "completions" in endpoint_type else "chat/completions"
    with FakeEndpoint(capabilities=has) as endpoint, pytest.raises(EndpointError, match=reason) as caught:
        checker(evaluation(f"{endpoint.base_url}/{path}", endpoint_type, required_capabilities=required))
    assert "lacks a capability that this task needs" in str(caught.value)


def test_endpoint_declared_to_see_that_does_not_is_told(checker: Checker) -> None:
    with FakeEndpoint(capabilities=[]) as endpoint:
        found = checker(evaluation(endpoint.chat_url, "vlm"))
    assert found.capabilities == {"image_url": False}
    assert "does not have the capability 'image_url'" in checker.told[0]


def test_unknown_capability_suggests_the_nearest(checker: Checker, endpoint: FakeEndpoint) -> None:
    with pytest.raises(MisconfigurationError, match=r"unknown capability 'logprob'\. Did you mean 'logprobs'"):
        checker(evaluation(endpoint.chat_url, required_capabilities=["logprob"]))


def test_data_check_sees_the_environment_and_passes(checker: Checker, endpoint: FakeEndpoint) -> None:
    checker(evaluation(endpoint.chat_url), data_check='echo noise; test "$A" = b', environ={**PATH, "A": "b"})


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo noise; echo 'the set is gated: ask at https://x.y' >&2; exit 7", "the set is gated: ask at https://x.y"),
        ("printf 'Traceback (most recent call last):\\n  File x\\nKeyError: 1\\n' >&2; exit 1", "KeyError: 1"),
        ("exit 3", "the check failed with exit code 3, and said nothing"),
    ],
)
def test_data_that_are_missing(checker: Checker, endpoint: FakeEndpoint, script: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        checker(evaluation(endpoint.chat_url), data_check=script)
    assert str(caught.value).splitlines()[0] == f"the data of this task are not available: {said}"


def test_all_problems_are_listed_and_the_first_of_the_user_decides(checker: Checker, unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}/v1/chat/completions"
    with pytest.raises(EndpointError) as caught:
        checker(evaluation(url), data_check="echo gated >&2; exit 1")
    assert "nothing listens" in str(caught.value)
    assert "gated" in str(caught.value)
    with pytest.raises(MisconfigurationError) as refused:
        checker(
            evaluation(url, api_key_name="NO_SUCH_VARIABLE", required_capabilities=["x"]),
            output_dir=Path("/proc/self/nowhere"),
        )
    for part in ("/proc/self/nowhere", "NO_SUCH_VARIABLE", "capability 'x'"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    "adapter",
    [
        {"headers": {"set": {"Authorization": {"env": "GATEWAY", "prefix": "Bearer "}}}},
        {"headers_to_add": {"Authorization": f"Bearer {KEY}"}},
        {
            "interceptors": [
                {"name": "headers", "config": {"set": {"authorization": {"env": "GATEWAY", "prefix": "Bearer "}}}}
            ]
        },
    ],
)
def test_the_endpoint_is_asked_with_the_headers_of_the_chain(checker: Checker, adapter: dict[str, Any]) -> None:
    with FakeEndpoint(require_key=KEY) as endpoint:
        asked = evaluation(endpoint.chat_url)
        assert asked.target.api_endpoint is not None
        asked.target.api_endpoint.adapter_config = AdapterConfig.model_validate(adapter)
        found = checker(asked, environ={**PATH, "GATEWAY": KEY})

    assert found.effective_url == endpoint.chat_url


def test_a_refused_header_of_the_chain_is_not_shown(checker: Checker) -> None:
    with FakeEndpoint(require_key="another") as endpoint:
        asked = evaluation(endpoint.chat_url)
        assert asked.target.api_endpoint is not None
        asked.target.api_endpoint.adapter_config = AdapterConfig(headers={"from_env": {"Authorization": "GATEWAY"}})
        with pytest.raises(EndpointError) as refused:
            checker(asked, environ={**PATH, "GATEWAY": f"Bearer {KEY}"})

    assert KEY not in str(refused.value)
