from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve
from tests.adapters.interceptors.conftest import Behind, Recorder
from tests.adapters.interceptors.exchange_lines import LOGGER, SECRET, check_parts, lines

from nemo_evaluator.adapters.proxy import ProxyOptions, Upstream, running_proxy
from nemo_evaluator.api.adapter_config import InterceptorConfig


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=LOGGER)


def test_the_first_requests_are_logged_as_they_are_sent(
    behind: Behind, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = behind(("payload_modifier", {"params_to_add": {"top_p": 0.5}}), ("request_logging", {}))
    client.ask("GET", proxy.url.removesuffix("/chat/completions") + "/models")
    for number in range(3):
        client.post(proxy.url, {"n": number}, headers={"X-Sample-Id": f"s{number}", "X-Trace": "t"})
    first, second = lines(caplog)
    assert first.startswith("Incoming request: POST http://127.0.0.1:")
    assert "/v1/chat/completions (model, sample s0" in first
    assert '"X-Trace": "t"' in first
    assert first.endswith('body: {"n":0,"top_p":0.5}')
    assert "sample s1" in second


@pytest.mark.parametrize(
    ("parameters", "count", "has_headers", "has_body"),
    [
        ({"max_requests": None}, 3, True, True),
        ({"max_requests": 0}, 0, False, False),
        ({"max_requests": 1, "log_request_body": False}, 1, True, False),
        ({"max_requests": 1, "log_request_headers": False}, 1, False, True),
    ],
)
def test_how_many_and_what_is_logged(
    behind: Behind,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    *,
    parameters: dict[str, Any],
    count: int,
    has_headers: bool,
    has_body: bool,
) -> None:
    proxy = behind(("request_logging", parameters))
    check_parts(proxy, client, caplog, count=count, parts={"headers": has_headers, "body": has_body})


@pytest.mark.parametrize(
    "name", ["Authorization", "X-Api-Key", "api-key", "Cookie", "X-Amz-Security-Token", "X-Client-Secret"]
)
def test_credentials_are_hidden_wherever_they_stand(
    behind: Behind, client: Client, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    proxy = behind(("request_logging", {}))
    client.post(f"{proxy.url}?api_key={SECRET}-2", {"user": f"it is {SECRET}"}, headers={name: SECRET})
    (line,) = lines(caplog)
    assert f'"{name}": "<redacted>"' in line
    assert '{"user": "it is <redacted>"}' in line
    assert SECRET not in line


def test_bodies_are_cut_and_media_shortened(behind: Behind, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    proxy = behind(("request_logging", {}))
    image = "data:image/png;base64," + "iVBORw0KGgo" * 20_000
    client.post(proxy.url, {"image_url": {"url": image}, "detail": "low"})
    client.post(proxy.url, {"text": "word " * 5000})
    picture, text = lines(caplog)
    assert "data:image/png;base64,iVBORw0KGgo" in picture
    assert "(220,000 characters)" in picture
    assert picture.endswith('"detail": "low"}')
    assert len(picture) < 1000
    assert text.endswith("… (25,012 bytes in all)")
    assert len(text) < 5000


def test_a_body_writes_no_lines_of_its_own(behind: Behind, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    proxy = behind(("request_logging", {"max_requests": None}))
    client.post(proxy.url, json.dumps({"a": 1, "b": [2]}, indent=2).encode() + b"\x1b[31m\r\n2026 ERROR forged")
    line = lines(caplog)[0]
    assert line.endswith('body: { "a": 1, "b": [ 2 ] }\\x1b[31m 2026 ERROR forged')


@pytest.mark.parametrize(
    ("body", "kind", "expected"),
    [
        (b"\x00\x01\x02", "audio/wav", "(3 bytes of audio/wav)"),
        (b"\xff\xfe\xfd\xfc", "application/json", "(4 bytes of application/json)"),
        (b"", "application/json", "(empty)"),
        ("é".encode(), "text/plain", "é"),
    ],
)
def test_what_is_no_text_is_named_only(
    behind: Behind, client: Client, caplog: pytest.LogCaptureFixture, *, body: bytes, kind: str, expected: str
) -> None:
    proxy = behind(("request_logging", {}))
    client.post(proxy.url, body, headers={"Content-Type": kind})
    assert lines(caplog)[0].endswith(f"body: {expected}")


def test_without_a_reader_nothing_is_counted(
    behind: Behind, client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = behind(("request_logging", {"max_requests": 1}))
    caplog.set_level(logging.WARNING, logger=LOGGER)
    client.post(proxy.url, {"n": 1})
    caplog.set_level(logging.INFO, logger=LOGGER)
    client.post(proxy.url, {"n": 2})
    assert [line.endswith('body: {"n": 2}') for line in lines(caplog)] == [True]
    assert len(recorder.bodies) == 2


def test_the_folder_of_the_run_has_them_too(
    serve: Serve, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no"}}, status=400)

    caplog.set_level(logging.CRITICAL, logger=LOGGER)
    chain = [InterceptorConfig(name=name) for name in ("failed_request_logging", "request_logging", "response_logging")]
    upstream, options = Upstream(f"{serve(handle)}/v1/chat/completions"), ProxyOptions(output_dir=tmp_path)
    for start in (1, 2):
        with running_proxy(upstream, chain, options=options) as proxy:
            client.post(proxy.url, {"start": start}, headers={"Authorization": f"Bearer {SECRET}"})
    file = tmp_path / "logs" / "requests.log"
    text = file.read_text()
    kinds = [line.split(" ", 1)[1].partition(":")[0] for line in text.splitlines()]
    assert kinds == ["INFO Incoming request", "INFO Outgoing response", "ERROR Failed request"] * 2
    assert '{"start": 2}' in text
    assert SECRET not in text
    assert file.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_costs_the_file_only(
    serve: Serve, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({})

    (tmp_path / "logs").write_text("no folder")
    chain = [InterceptorConfig(name="request_logging")]
    upstream, options = Upstream(f"{serve(handle)}/v1/chat/completions"), ProxyOptions(output_dir=tmp_path)
    with running_proxy(upstream, chain, options=options) as proxy:
        assert [client.post(proxy.url, {"n": n}).status for n in range(2)] == [200, 200]
    assert caplog.text.count("cannot be written") == 1
    assert len([line for line in lines(caplog) if line.startswith("Incoming")]) == 2


def test_secrets_among_added_parameters_are_hidden(
    behind: Behind, client: Client, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    added = {"api_key": SECRET, "auth": {"client_secret": f'{SECRET}-"\u00e9'}, "note": "shown"}
    proxy = behind(("payload_modifier", {"params_to_add": added}), ("request_logging", {}))
    client.post(proxy.url, {"a": 1})
    (line,) = lines(caplog)
    assert SECRET not in line
    assert '"note":"shown"' in line
    assert recorder.bodies[0]["api_key"] == SECRET
