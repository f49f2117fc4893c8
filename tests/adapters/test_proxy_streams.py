"""Streams that interceptors drop or fail on: nothing stays held, and nothing cut is taken for whole."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve
from tests.adapters.interceptors.crowd import left_open, until

from nemo_evaluator.adapters.chain import resolve_chain
from nemo_evaluator.adapters.discovery import discover_interceptors
from nemo_evaluator.adapters.proxy import ProxyOptions, Route, Upstream, running_proxy
from nemo_evaluator.api.adapter_config import AdapterConfig

STREAM = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}
CACHING = {"name": "caching", "config": {"reuse_cached_responses": True}}

CODE = """
import asyncio

from multidict import CIMultiDict

from nemo_evaluator.adapters import register_for_adapter
from nemo_evaluator.adapters.messages import Response


@register_for_adapter("raises")
async def raises(request, call_next):
    await call_next(request)
    raise RuntimeError("boom")


@register_for_adapter("replaces")
async def replaces(request, call_next):
    await call_next(request)
    return Response(200, CIMultiDict(), b"{}")


@register_for_adapter("hangs")
async def hangs(request, call_next):
    await call_next(request)
    await asyncio.sleep(60)


@register_for_adapter("raises_nearby", stage="transport")
async def raises_nearby(request, call_next):
    await call_next(request)
    raise RuntimeError("boom")


def fail(exchange):
    raise RuntimeError("callback")


@register_for_adapter("fails_at_the_end", stage="transport")
async def fails_at_the_end(request, call_next):
    response = await call_next(request)
    response.exchange.when_over(fail)
    return response
"""


def event(text: str) -> bytes:
    return b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}, "finish_reason": null}]}\n\n' % text.encode()


async def talks(request: web.Request) -> web.StreamResponse:
    """An endpoint that begins, and then takes its time."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    asked = await request.json()
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 1}}\n\n'
    if "silent" in asked:
        await response.write(event("one"))
    else:
        await response.write((usage.replace(b"1000", b"100") if "slow" not in asked else usage) + event("one"))
    await asyncio.sleep(60 if "slow" in asked else 0.1)
    await response.write(event("two") + b"data: [DONE]\n\n")
    return response


def route(origin: str, folder: Path, *interceptors: str | dict[str, Any]) -> Route:
    (folder / "plugin.py").write_text(CODE)
    entries = [{"name": entry} if isinstance(entry, str) else entry for entry in (*interceptors, "endpoint")]
    config = AdapterConfig.model_validate({"discovery": {"dirs": [str(folder)]}, "interceptors": entries})
    known = discover_interceptors(config.discovery, [entry.name for entry in config.interceptors]).kinds
    chain = resolve_chain(config, output_dir=folder / "out", known=known)
    return Route(upstream=Upstream(f"{origin}/v1/chat/completions"), chain=chain, known=known)


def ask_and_leave(url: str) -> None:
    """Send a request, and wait a moment for its answer."""
    with contextlib.suppress(OSError, http.client.HTTPException), left_open(url, json.dumps(STREAM).encode()) as asked:
        assert asked.sock is not None
        asked.sock.settimeout(0.3)
        asked.getresponse().read()


@pytest.mark.parametrize("name", ["raises", "replaces", "hangs", "raises_nearby"])
def test_an_interceptor_that_drops_a_stream_holds_no_place(serve: Serve, tmp_path: Path, name: str) -> None:
    model = route(serve(talks), tmp_path, name, CACHING, {"name": "concurrency", "config": {"max": 1}})
    with running_proxy(model, options=ProxyOptions(output_dir=tmp_path)) as proxy:
        for _ in range(3):
            ask_and_leave(proxy.url)
        until(lambda: proxy.stats().in_flight == 0 and proxy.steering.limits()["model"].in_use == 0)
        assert proxy.stats().sent == 3


def test_a_callback_that_fails_keeps_neither_places_nor_answers(serve: Serve, client: Client, tmp_path: Path) -> None:
    model = route(serve(talks), tmp_path, CACHING, {"name": "concurrency", "config": {"max": 1}}, "fails_at_the_end")
    for sent in (1, 0):
        with running_proxy(model, options=ProxyOptions(output_dir=tmp_path)) as proxy:
            replies = [client.post(proxy.url, {**STREAM, "seed": seed}) for seed in range(2)]
            assert all(reply.body.endswith(b"data: [DONE]\n\n") and b"one" in reply.body for reply in replies)
            assert proxy.steering.limits()["model"].in_use == 0
            assert proxy.stats().sent == 2 * sent


def test_streams_that_are_left_are_paid_for(serve: Serve, tmp_path: Path) -> None:
    model = route(serve(talks), tmp_path, {"name": "budget", "config": {"max_tokens": 3000}})
    with running_proxy(model, options=ProxyOptions(output_dir=tmp_path)) as proxy:
        for _ in range(5):
            with left_open(proxy.url, json.dumps({**STREAM, "slow": True}).encode()) as asked:
                asked.getresponse().read1()
            until(lambda: proxy.stats().in_flight == 0)
        assert proxy.stats().sent == 3
        assert proxy.ends.kind == "budget"


def test_streams_that_are_left_without_a_word_cost_as_much_as_others(
    serve: Serve, client: Client, tmp_path: Path
) -> None:
    model = route(serve(talks), tmp_path, {"name": "budget", "config": {"max_tokens": 500}})
    with running_proxy(model, options=ProxyOptions(output_dir=tmp_path)) as proxy:
        assert client.post(proxy.url, STREAM).status == 200
        for _ in range(5):
            with left_open(proxy.url, json.dumps({**STREAM, "slow": True, "silent": True}).encode()) as asked:
                asked.getresponse().read1()
            until(lambda: proxy.stats().in_flight == 0)
        assert proxy.ends.kind == "budget"
    assert json.loads((tmp_path / "budget.json").read_text())["endpoints"]["model"] == {
        "requests": 5,
        "answers": 1,
        "prompt_tokens": 500,
        "completion_tokens": 5,
        "cost": 0.0,
    }


def test_a_key_that_only_the_endpoint_gets_is_nowhere_else(
    serve: Serve, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "f00barbaz-quux-12345"
    monkeypatch.setenv("JUDGE_ACCESS", key)

    async def repeat(request: web.Request) -> web.Response:
        said = request.headers["Authorization"]
        if (await request.json())["n"] == 1:
            return web.json_response({"choices": [{"message": {"content": said}}]}, headers={"X-Said": said})
        return web.json_response({"error": {"message": f"Incorrect API key: {said.split()[1]}"}}, status=401)

    names = ("failed_request_logging", "request_logging", "response_logging", CACHING)
    model = replace(route(serve(repeat), tmp_path, *names), api_key_name="JUDGE_ACCESS")
    with caplog.at_level("INFO"), running_proxy(model, options=ProxyOptions(output_dir=tmp_path)) as proxy:
        for number in (1, 2):
            client.post(proxy.url, {**STREAM, "n": number}, headers={"Authorization": "Bearer dummy-key"})
        stats = proxy.stats()
    assert stats.upstream_by_status == {200: 1, 401: 1}
    assert "Incorrect API key" in stats.recent_failures[0].message
    assert key not in repr(stats)
    assert "Incorrect API key" in caplog.text
    assert key not in caplog.text
    assert (tmp_path / "logs" / "requests.log").is_file()
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and key.encode() in file.read_bytes()]
