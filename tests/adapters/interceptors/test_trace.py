"""Records of attempts in the store, and spans at a collector that decodes them."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.adapters.conftest import Client
from tests.adapters.interceptors.crowd import Link, chat
from tests.adapters.interceptors.crowd import behind as chain_before

from nemo_evaluator.adapters.proxy import ProxyOptions
from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.adapters.store.record import Record
from nemo_evaluator.errors import MisconfigurationError
from nemo_evaluator.testing import FakeEndpoint

FAST_RETRY = ("retry", {"base_seconds": 0.001})


class Collector:
    """An OTLP/HTTP receiver."""

    def __init__(self, status: int = 200) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def take(self, path: str, body: bytes) -> None:
        self.paths.add(path)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {_value(item.value) for item in resource.resource.attributes if item.key == "service.name"}
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    receiver = Collector()
    yield receiver
    receiver.stop()


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind or "string_value")


def _attributes(span: Span) -> dict[str, Any]:
    return {item.key: _value(item.value) for item in span.attributes}


def test_an_exchange_is_a_span_of_the_conventions(client: Client, collector: Collector) -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    with FakeEndpoint("Paris", model_id="m") as endpoint:
        with chain_before(endpoint.chat_url, ("trace", {"otlp_endpoint": collector.url, "service": "mine"})) as proxy:
            body = chat("the capital of France?", temperature=0.5, max_tokens=7, seed=3, stop=["x"]) | {"model": "m"}
            client.post(proxy.url, body, headers={"X-Sample-Id": "s-1", "traceparent": parent})
        port = int(endpoint.chat_url.split(":")[2].split("/")[0])
    (span,) = collector.spans
    attributes = _attributes(span)
    assert (collector.paths, collector.services) == ({"/v1/traces"}, {"mine"})
    assert (span.name, span.kind) == ("chat m", Span.SPAN_KIND_CLIENT)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 30e9
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ["stop"],
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 200,
        "nemo_evaluator.sample": "s-1",
        "nemo_evaluator.upstream": "model",
    }.items() <= attributes.items()
    assert attributes["gen_ai.usage.input_tokens"] > 0
    assert attributes["gen_ai.usage.output_tokens"] > 0
    assert "error.type" not in attributes
    assert "France" not in str(attributes)


@pytest.mark.parametrize("stream", [False, True])
def test_texts_are_told_only_when_asked_for(client: Client, collector: Collector, *, stream: bool) -> None:
    link = ("trace", {"otlp_endpoint": f"{collector.url}/v1/traces", "capture_content": True})
    with FakeEndpoint("in Paris") as endpoint, chain_before(endpoint.chat_url, link) as proxy:
        client.post(proxy.url, chat("where?", stream=stream))
    (span,) = collector.spans
    attributes = _attributes(span)
    text = {"type": "text", "content": "where?"}
    assert json.loads(attributes["gen_ai.input.messages"]) == [{"role": "user", "parts": [text]}]
    (output,) = json.loads(attributes["gen_ai.output.messages"])
    assert output["parts"][0]["content"] == "in Paris"
    assert ("gen_ai.response.time_to_first_chunk" in attributes) is stream


def test_failed_attempts_are_spans_of_one_trace(client: Client, collector: Collector) -> None:
    link = ("trace", {"otlp_endpoint": collector.url})
    with (
        FakeEndpoint("yes", faults=["503,at=0", "reset_mid_body,at=1"]) as endpoint,
        chain_before(endpoint.chat_url, FAST_RETRY, link) as proxy,
    ):
        assert client.post(proxy.url, chat("?")).status == 200
    assert len({span.trace_id for span in collector.spans}) == 1
    attributes = [_attributes(span) for span in collector.spans]
    assert [each.get("error.type") for each in attributes] == ["503", "connection_failed", None]
    assert [each.get("http.request.resend_count") for each in attributes] == [None, 1, 2]
    assert [span.status.code for span in collector.spans] == [2, 2, 0]


@pytest.mark.parametrize("propagate", [False, True])
def test_the_endpoint_learns_its_span_only_when_asked_for(
    client: Client, collector: Collector, *, propagate: bool
) -> None:
    link = ("trace", {"otlp_endpoint": collector.url, "propagate": propagate})
    with FakeEndpoint("yes") as endpoint, chain_before(endpoint.chat_url, link) as proxy:
        client.post(proxy.url, chat("?"))
        headers = {name.lower(): value for name, value in endpoint.requests[0].headers.items()}
    (span,) = collector.spans
    expected = f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" if propagate else None
    assert headers.get("traceparent") == expected


def test_a_collector_that_fails_costs_spans_and_nothing_else(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Collector(status=400)
    with (
        caplog.at_level(logging.WARNING),
        FakeEndpoint("yes") as endpoint,
        chain_before(endpoint.chat_url, ("trace", {"otlp_endpoint": receiver.url})) as proxy,
    ):
        assert client.post(proxy.url, chat("?")).status == 200
        assert proxy.stats().answered == 1
    receiver.stop()
    assert "1 spans were not exported" in caplog.text


def test_the_environment_names_a_collector_too(
    client: Client, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/")
    with FakeEndpoint("yes") as endpoint, chain_before(endpoint.chat_url, ("trace", {})) as proxy:
        client.post(proxy.url, chat("?"))
    assert len(collector.spans) == 1


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/v1/traces/"])
def test_a_query_of_the_collector_stays_at_the_end(client: Client, collector: Collector, path: str) -> None:
    link = ("trace", {"otlp_endpoint": f"{collector.url}{path}?api_key=K"})
    with FakeEndpoint("yes") as endpoint, chain_before(endpoint.chat_url, link) as proxy:
        client.post(proxy.url, chat("?"))

    assert collector.paths == {"/v1/traces?api_key=K"}


def test_no_log_has_the_key_of_a_collector(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    link = ("trace", {"otlp_endpoint": f"http://127.0.0.1:{port}?api_key=K-hunter2"})
    with (
        caplog.at_level(logging.DEBUG),
        FakeEndpoint("yes") as endpoint,
        chain_before(endpoint.chat_url, link) as proxy,
    ):
        client.post(proxy.url, chat("?"))

    assert any("opentelemetry" in record.name for record in caplog.records)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("url", ["localhost:4318", "ftp://host", "http://"])
def test_a_wrong_collector_is_refused_at_the_start(url: str) -> None:
    with (
        FakeEndpoint("yes") as endpoint,
        pytest.raises(MisconfigurationError, match="otlp_endpoint must be"),
        chain_before(endpoint.chat_url, ("trace", {"otlp_endpoint": url})),
    ):
        raise AssertionError("it started")


def _records(folder: Path) -> list[Record]:
    with StoreReader(folder / "cache" / "requests.db") as reader:
        return list(reader.records())


def _run(client: Client, folder: Path, *chain: tuple[str, dict[str, Any]], faults: list[str]) -> list[Record]:
    options = ProxyOptions(output_dir=folder)
    with (
        FakeEndpoint("yes", faults=faults) as endpoint,
        chain_before(endpoint.chat_url, *chain, options=options) as proxy,
    ):
        for number in range(2):
            client.post(proxy.url, chat(f"question {number}"), headers={"X-Sample-Id": str(number)})
    return _records(folder)


CACHING = ("caching", {"reuse_cached_responses": True})


@pytest.mark.parametrize("with_caching", [False, True])
@pytest.mark.parametrize("attempts", [False, True])
def test_each_request_is_recorded_once_or_each_attempt(
    client: Client, tmp_path: Path, *, attempts: bool, with_caching: bool
) -> None:
    chain: list[Link] = [FAST_RETRY, ("trace", {"attempts": attempts})]
    records = _run(client, tmp_path, *([CACHING] if with_caching else []), *chain, faults=["503,at=0+1"])
    found = sorted((record.sample, record.attempt, record.status, record.is_usable) for record in records)
    last = [("0", 3, 200, True), ("1", 1, 200, True)]
    assert found == sorted([("0", 1, 503, False), ("0", 2, 503, False), *last] if attempts else last)
    assert len({record.request_id for record in records}) == 2


def test_a_request_that_failed_in_the_end_is_recorded_too(client: Client, tmp_path: Path) -> None:
    records = _run(client, tmp_path, ("trace", {}), faults=["400,at=0"])
    assert sorted((record.sample, record.status) for record in records) == [("0", 400), ("1", 200)]
