from __future__ import annotations

import asyncio
import base64
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web
from multidict import CIMultiDict
from tests.adapters.conftest import Client, Serve
from tests.adapters.interceptors.conftest import Behind, Recorder

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.interceptors.progress_tracking import ProgressTracking, ProgressTrackingParameters
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.proxy import RunningProxy, running_proxy
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError

ANSWER = b'{"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}'
NAME = "progress_tracking"


class Receiver:
    """Takes updates, as a tracking service does."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.requests: list[tuple[str, str, str | None]] = []
        self.status = 204
        self.in_flight = 0
        self.most_in_flight = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.requests.append((request.method, request.path_qs, request.headers.get("Authorization")))
        self.updates.append(await request.json())
        await asyncio.to_thread(self.may_answer.wait, 20)
        self.in_flight -= 1
        return web.Response(status=self.status)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def url(serve: Serve, receiver: Receiver) -> str:
    return f"{serve(receiver.answer)}/progress"


@pytest.fixture(autouse=True)
def _answers(recorder: Recorder) -> None:
    recorder.body = ANSWER


def ask(client: Client, proxy: RunningProxy, *samples: str | None, planned: int | None = None) -> None:
    for sample in samples:
        headers = {"X-Sample-Id": sample} if sample is not None else {}
        if planned is not None:
            headers["X-Samples-Planned"] = str(planned)
        assert client.post(proxy.url, headers=headers).status == 200


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_samples_are_counted_and_told_with_their_share(
    behind: Behind, client: Client, receiver: Receiver, url: str
) -> None:
    proxy = behind((NAME, {"progress_tracking_url": url}))
    ask(client, proxy, "s1", "s2", "s2", "s3", "s1", planned=8)
    proxy.stop()
    assert receiver.updates[-1] == {"samples_processed": 3, "samples_total": 8, "percent": 37.5}
    counts = [update["samples_processed"] for update in receiver.updates]
    assert counts == sorted(set(counts))


def test_without_names_usable_answers_are_counted(
    behind: Behind, client: Client, recorder: Recorder, receiver: Receiver, url: str
) -> None:
    proxy = behind((NAME, {"progress_tracking_url": url}))
    ask(client, proxy, None, None)
    recorder.body = b"<html>"
    ask(client, proxy, None)
    recorder.status, recorder.body = 500, ANSWER
    client.post(proxy.url)
    client.ask("GET", proxy.url.removesuffix("/chat/completions") + "/models")
    proxy.stop()
    assert receiver.updates[-1] == {"samples_processed": 2}


def test_streams_are_counted_at_their_end(serve: Serve, client: Client, tmp_path: Path) -> None:
    events = b'data: {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(events)
        return response

    chain = [InterceptorConfig(name=NAME, config={"output_dir": str(tmp_path)})]
    with running_proxy(Upstream(f"{serve(handle)}/v1/chat/completions"), chain) as proxy:
        assert client.post(proxy.url).body == events
    assert (tmp_path / "progress").read_text() == "1\n"


def test_updates_come_at_intervals_and_at_the_end(behind: Behind, client: Client, receiver: Receiver, url: str) -> None:
    proxy = behind((NAME, {"progress_tracking_url": url, "progress_tracking_interval": 3}))
    ask(client, proxy, "1", "2")
    ask(client, proxy, "3")
    until(lambda: bool(receiver.updates))
    ask(client, proxy, "4")
    proxy.stop()
    assert receiver.updates == [{"samples_processed": 3}, {"samples_processed": 4}]


def test_time_alone_brings_an_update(behind: Behind, client: Client, receiver: Receiver, url: str) -> None:
    parameters = {"progress_tracking_interval": 1000, "progress_tracking_interval_seconds": 0.05}
    proxy = behind((NAME, {"progress_tracking_url": url, **parameters}))
    for number in range(2):
        ask(client, proxy, f"{number}")
        until(lambda number=number: len(receiver.updates) == number + 1)  # type: ignore[misc]
    proxy.stop()
    assert receiver.updates == [{"samples_processed": 1}, {"samples_processed": 2}]


def test_a_slow_receiver_holds_up_no_answer_and_gets_the_newest_only(
    behind: Behind, client: Client, receiver: Receiver, url: str
) -> None:
    receiver.may_answer.clear()
    proxy = behind((NAME, {"progress_tracking_url": url}))
    ask(client, proxy, "first")
    until(lambda: len(receiver.updates) == 1)
    ask(client, proxy, *(f"s{number}" for number in range(20)))
    assert len(receiver.updates) == 1
    receiver.may_answer.set()
    proxy.stop()
    assert receiver.updates == [{"samples_processed": 1}, {"samples_processed": 21}]
    assert receiver.most_in_flight == 1


def test_a_receiver_that_is_not_there_is_a_warning_once(
    behind: Behind, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    proxy = behind((NAME, {"progress_tracking_url": f"http://127.0.0.1:{port}/p?token=hunter2-s3cret"}))
    ask(client, proxy, "1")
    until(lambda: "progress" in caplog.text)
    ask(client, proxy, "2", "3")
    proxy.stop()
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert f"http://127.0.0.1:{port} failed" in warnings[0].getMessage()
    assert "hunter2" not in caplog.text


def test_a_receiver_that_refuses_is_a_warning_once(
    behind: Behind, client: Client, receiver: Receiver, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 503
    proxy = behind((NAME, {"progress_tracking_url": url}))
    ask(client, proxy, "1")
    until(lambda: len(receiver.updates) == 1)
    ask(client, proxy, "2")
    proxy.stop()
    assert len(receiver.updates) == 2
    assert caplog.text.count("answered an update with 503") == 1


def test_a_receiver_that_never_answers_does_not_keep_the_run(
    behind: Behind, client: Client, receiver: Receiver, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.may_answer.clear()
    proxy = behind((NAME, {"progress_tracking_url": url}))
    ask(client, proxy, "1", "2")
    proxy.stop()
    assert not proxy.is_serving
    assert "progress_tracking" in caplog.text
    receiver.may_answer.set()


def test_the_address_may_name_variables_and_hold_a_password(
    behind: Behind, client: Client, receiver: Receiver, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKER", url.replace("http://", "http://me:pass@"))
    monkeypatch.setenv("RUN_ID", "r7")
    proxy = behind((NAME, {"progress_tracking_url": "${TRACKER}/$RUN_ID?x=1", "request_method": "post"}))
    ask(client, proxy, "1")
    proxy.stop()
    assert receiver.requests == [("POST", "/progress/r7?x=1", f"Basic {base64.b64encode(b'me:pass').decode()}")]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://$NOT_THERE/x", "NOT_THERE, which is unset"),
        ("ftp://hunter2@host/", "must be like http://HOST:PORT/PATH"),
        ("localhost:8000", "must be like"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_at_the_start(behind: Behind, url: str, expected: str) -> None:
    with pytest.raises(MisconfigurationError) as caught:
        behind((NAME, {"progress_tracking_url": url}))
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_without_an_address_only_the_file_is_written(
    behind: Behind, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = behind((NAME, {"output_dir": str(tmp_path)}))
    ask(client, proxy, "1", "2")
    proxy.stop()
    assert "progress_tracking_url is not set" in caplog.text
    assert (tmp_path / "progress").read_text() == "2\n"


def test_a_folder_that_cannot_be_written_is_a_warning(
    behind: Behind, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = behind((NAME, {"output_dir": str(tmp_path / "absent")}))
    ask(client, proxy, "1")
    proxy.stop()
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize(
    ("replayed", "fresh", "planned", "expected"),
    [
        (0, 3, None, 8),  # A harness that resumes by itself asks for the rest only.
        (5, 3, None, 8),  # All of the earlier run is replayed.
        (2, 1, None, 6),  # The replay is under way.
        (7, 1, None, 8),  # The file was behind.
        (5, 0, None, 5),
        (0, 8, 10, 10),
    ],
)
def test_a_resumed_run_goes_on_at_the_number_of_the_file(
    tmp_path: Path, *, replayed: int, fresh: int, planned: int | None, expected: int
) -> None:
    (tmp_path / "progress").write_text("5")
    parameters = ProgressTrackingParameters(output_dir=str(tmp_path), progress_tracking_interval=1)

    async def run() -> None:
        tracking = ProgressTracking(parameters, Context(upstream=Upstream("http://127.0.0.1:1/v1")))
        sources: list[Literal["store", "endpoint"]] = [*["store"] * replayed, *["endpoint"] * fresh]  # type: ignore[list-item]
        for number, source in enumerate(sources):
            request = Request("POST", "http://127.0.0.1:1/v1", CIMultiDict(), b"{}")
            request.sample, request.planned = f"s{number}", planned
            exchange = Exchange(200, source=source, is_over=True)

            async def answer(_: Request, exchange: Exchange = exchange) -> Response:
                return Response(200, CIMultiDict(), b"{}", exchange=exchange)

            await tracking(request, answer)
        await tracking.close()

    asyncio.run(run())
    assert int((tmp_path / "progress").read_text()) == expected
