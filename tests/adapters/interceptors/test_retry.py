from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError
from tests.adapters.conftest import Client, Serve
from tests.adapters.interceptors.conftest import Recorder
from tests.adapters.interceptors.crowd import ask_all, behind, chat, left_open, until

from nemo_evaluator.adapters.interceptors.retry import RetryParameters
from nemo_evaluator.adapters.outage import SHORTEST_PROBE_GAP
from nemo_evaluator.adapters.proxy import RunningProxy, Upstream
from nemo_evaluator.testing import FakeEndpoint, Fault

QUICK: dict[str, Any] = {"base_seconds": 0.01, "max_wait_seconds": 0.05}
REPEATED = (408, 409, 425, 429, 500, 502, 503, 504, 529)


def of_prompts(endpoint: FakeEndpoint) -> Counter[str]:
    return Counter(request.body["messages"][0]["content"] for request in endpoint.requests)


def assert_counts_agree(proxy: RunningProxy, endpoint: FakeEndpoint) -> None:
    stats = proxy.stats()
    assert stats.sent == endpoint.count
    assert stats.retried == endpoint.count - stats.requests
    assert {str(status): count for status, count in stats.upstream_by_status.items()} == {
        status: count for status, count in endpoint.stats["by_status"].items() if status != "none"
    }


def test_each_of_its_statuses_is_repeated_at_most_twice() -> None:
    faults = [Fault(status, match=f"^{status}$", first_per_prompt=2) for status in REPEATED]
    with FakeEndpoint(faults=faults) as endpoint, behind(endpoint.chat_url, ("retry", QUICK)) as proxy:
        replies = ask_all(proxy.url, [str(status) for status in REPEATED])
        assert [reply.status for reply in replies] == [200] * len(REPEATED)
        assert set(of_prompts(endpoint).values()) == {3}
        assert_counts_agree(proxy, endpoint)
        assert proxy.stats().retried == 2 * len(REPEATED)


def test_many_faults_among_many_requests_are_counted_exactly() -> None:
    faults = [
        Fault(503, prompt_fraction=0.3, first_per_prompt=2, seed=1),
        Fault("malformed_json", prompt_fraction=0.2, first_per_prompt=1, seed=2),
        Fault(400, prompt_fraction=0.1, seed=3),
    ]
    with FakeEndpoint(faults=faults) as endpoint, behind(endpoint.chat_url, ("retry", QUICK)) as proxy:
        replies = ask_all(proxy.url, [f"question {number}" for number in range(200)], parallel=16)
        assert max(of_prompts(endpoint).values()) <= 3
        stats = proxy.stats()
        assert stats.answered == sum(reply.status == 200 for reply in replies)
        assert stats.by_status[400] == endpoint.stats["by_fault"]["400"]
        assert_counts_agree(proxy, endpoint)


def test_the_last_failure_reaches_the_harness_as_itself() -> None:
    faults = [Fault(503, message="come back later")]
    with FakeEndpoint(faults=faults) as endpoint, behind(endpoint.chat_url, ("retry", QUICK)) as proxy:
        reply = Client().post(proxy.url, chat("x"))
        assert (reply.status, reply.json()["error"]["message"]) == (503, "come back later")
        assert reply.headers["x-should-retry"] == "false"
        assert endpoint.count == 3
        assert_counts_agree(proxy, endpoint)


def test_a_harness_is_told_that_broken_connections_were_repeated_in_vain() -> None:
    with (
        FakeEndpoint(faults=[Fault("reset_mid_body", match="bad")]) as endpoint,
        behind(endpoint.chat_url, ("retry", QUICK)) as proxy,
    ):
        assert "x-should-retry" not in Client().post(proxy.url, chat("good")).headers
        reply = Client().post(proxy.url, chat("bad"))
        assert (reply.status, reply.headers["x-should-retry"]) == (502, "false")
        assert reply.json()["error"]["code"] == "connection_failed"


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_refused_request_is_not_repeated(status: int) -> None:
    faults = [Fault(status)]
    with FakeEndpoint(faults=faults) as endpoint, behind(endpoint.chat_url, ("retry", QUICK)) as proxy:
        assert Client().post(proxy.url, chat("x")).status == status
        assert endpoint.count == 1


@pytest.mark.parametrize("key", ["code", "type"])
def test_an_account_without_quota_is_not_asked_again(key: str, serve: Serve, recorder: Recorder) -> None:
    recorder.status = 429
    recorder.body = json.dumps({"error": {"message": "no more", key: "insufficient_quota"}}).encode()
    with behind(f"{serve(recorder.__call__)}/v1/chat/completions", ("retry", QUICK)) as proxy:
        assert Client().post(proxy.url, chat("x")).status == 429
    assert len(recorder.bodies) == 1


def test_an_endpoint_that_forbids_repetition_is_heeded(serve: Serve) -> None:
    asked = 0

    async def handle(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"error": {}}, status=500, headers={"X-Should-Retry": "false"})

    with behind(f"{serve(handle)}/v1/chat/completions", ("retry", QUICK)) as proxy:
        assert Client().post(proxy.url, chat("x")).status == 500
    assert asked == 1


@pytest.mark.parametrize(
    "kind", ["reset", "reset_mid_body", "truncated", "malformed_json", "html", "empty", "no_choices", "error_body"]
)
def test_what_is_no_whole_answer_is_repeated(kind: str) -> None:
    faults = [Fault(kind, first_per_prompt=2)]
    with FakeEndpoint(faults=faults) as endpoint, behind(endpoint.chat_url, ("retry", QUICK)) as proxy:
        assert Client().post(proxy.url, chat("x")).status == 200
        assert endpoint.count == 3


def test_what_is_no_whole_answer_reaches_the_harness_when_that_is_wanted() -> None:
    parameters = {**QUICK, "unusable_answers": False, "connection_failures": False}
    faults = [Fault("reset", at=(0,)), Fault("empty", at=(1,))]
    with FakeEndpoint(faults=faults) as endpoint, behind(endpoint.chat_url, ("retry", parameters)) as proxy:
        assert Client().post(proxy.url, chat("x")).status == 502
        assert Client().post(proxy.url, chat("x")).body == b""
        assert endpoint.count == 2


@pytest.mark.parametrize(("timeouts", "expected"), [(False, 1), (True, 2)])
def test_a_request_that_took_too_long_is_repeated_on_demand(*, timeouts: bool, expected: int) -> None:
    parameters = {**QUICK, "timeouts": timeouts, "max_attempts": 2}
    with FakeEndpoint(faults=[Fault("hang", seconds=5)]) as endpoint:
        upstream = Upstream(endpoint.chat_url, request_timeout=0.1)
        with behind(upstream, ("retry", parameters)) as proxy:
            assert Client().post(proxy.url, chat("x")).status == 504
            assert endpoint.count == expected


def test_one_request_puts_up_with_many_refusals_but_not_with_all() -> None:
    faults = [Fault(429, match="some", first_per_prompt=5), Fault(429, match="all")]
    parameters = {**QUICK, "max_refusals": 6}
    with FakeEndpoint(faults=faults) as endpoint, behind(endpoint.chat_url, ("retry", parameters)) as proxy:
        assert [reply.status for reply in ask_all(proxy.url, ["some", "all"])] == [200, 429]
        assert of_prompts(endpoint) == {"some": 6, "all": 7}


def test_nothing_is_repeated_with_a_single_attempt() -> None:
    parameters = {"max_attempts": 1, "outage_seconds": 0}
    with (
        FakeEndpoint(faults=["429,match=a", "500,match=b", "empty,match=c"]) as endpoint,
        behind(endpoint.chat_url, ("retry", parameters)) as proxy,
    ):
        replies = ask_all(proxy.url, ["a", "b", "c"])
        assert [reply.status for reply in replies] == [429, 500, 200]
        assert not any("x-should-retry" in reply.headers for reply in replies)
        assert endpoint.count == 3


def test_waits_are_bounded_in_sum() -> None:
    parameters = {"base_seconds": 0.2, "total_wait_seconds": 0.1}
    with FakeEndpoint(faults=[Fault(500)]) as endpoint, behind(endpoint.chat_url, ("retry", parameters)) as proxy:
        assert Client().post(proxy.url, chat("x")).status == 500
        assert endpoint.count == 1


def test_the_wait_that_the_endpoint_asks_for_is_kept() -> None:
    faults = [Fault(503, first=1, retry_after=1)]
    with (
        FakeEndpoint(faults=faults) as endpoint,
        behind(endpoint.chat_url, ("retry", {"base_seconds": 0.01})) as proxy,
    ):
        assert Client().post(proxy.url, chat("x")).status == 200
        first, second = endpoint.requests
        assert second.at - first.at >= 1


def test_the_wait_that_the_endpoint_asks_for_is_bounded() -> None:
    faults = [Fault(503, first=1, retry_after=3600)]
    with FakeEndpoint(faults=faults) as endpoint, behind(endpoint.chat_url, ("retry", QUICK)) as proxy:
        assert Client().post(proxy.url, chat("x")).status == 200
        assert endpoint.count == 2


async def _events(request: web.Request, *chunks: bytes, ends: bool) -> web.StreamResponse:
    reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await reply.prepare(request)
    for chunk in chunks:
        await reply.write(chunk)
    if not ends and request.transport is not None:
        request.transport.close()
    return reply


def test_a_stream_is_repeated_as_long_as_nothing_of_it_went_on(serve: Serve) -> None:
    asked = 0
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await _events(request, *([] if asked == 1 else [event, b"data: [DONE]\n\n"]), ends=asked > 1)

    with behind(f"{serve(handle)}/v1/chat/completions", ("retry", QUICK)) as proxy:
        reply = Client().post(proxy.url, chat("x", stream=True))
    assert reply.body == event + b"data: [DONE]\n\n"
    assert asked == 2


def test_a_stream_that_breaks_later_is_cut_for_the_harness_too(serve: Serve) -> None:
    asked = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        event = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
        return await _events(request, event, ends=False)

    with behind(f"{serve(handle)}/v1/chat/completions", ("retry", QUICK)) as proxy:
        with pytest.raises((OSError, Exception), match=r"[Ii]ncomplete|reset"):
            Client().post(proxy.url, chat("x", stream=True))
        assert proxy.stats().retried == 0
    assert asked == 1


def test_nothing_is_sent_for_a_harness_that_left() -> None:
    parameters = {"base_seconds": 0.3, "max_wait_seconds": 0.4}
    with FakeEndpoint(faults=[Fault(500)]) as endpoint, behind(endpoint.chat_url, ("retry", parameters)) as proxy:
        with left_open(proxy.url, json.dumps(chat("x")).encode()):
            until(lambda: endpoint.count == 1)
        until(lambda: proxy.stats().abandoned == 1)
        time.sleep(0.6)
        assert endpoint.count == 1
        assert proxy.stats().retried == 0


def test_nothing_is_repeated_after_the_end_of_the_run() -> None:
    parameters = {"base_seconds": 0.3, "max_wait_seconds": 0.4}
    with (
        FakeEndpoint(faults=[Fault(500)]) as endpoint,
        behind(endpoint.chat_url, ("retry", parameters)) as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        reply = pool.submit(Client().post, proxy.url, chat("x"))
        until(lambda: endpoint.count == 1)
        proxy.ends.end("that is enough", "budget", status=402)
        assert reply.result().status == 402
        assert reply.result().json()["error"]["type"] == "run_ended"
        assert endpoint.count == 1


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_an_outage_is_waited_for_by_all_and_probed_by_one() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    prompts = [f"question {number}" for number in range(60)]
    with behind(url, ("retry", {**QUICK, "max_probe_seconds": 0.6})) as proxy, ThreadPoolExecutor(1) as pool:
        with FakeEndpoint(port=port, latency=0.05) as endpoint:
            replies = pool.submit(ask_all, proxy.url, prompts, parallel=16)
            until(lambda: endpoint.count >= 20)
        gone, before = time.monotonic(), proxy.stats().sent
        # All that were in flight or on their way have failed, and three probes at least have gone.
        until(lambda: proxy.stats().sent >= before + 3)
        until(lambda: time.monotonic() >= gone + 2 * SHORTEST_PROBE_GAP)
        probes, seconds = proxy.stats().sent - before, time.monotonic() - gone
        with FakeEndpoint(port=port) as endpoint:
            assert [reply.status for reply in replies.result()] == [200] * 60
        assert proxy.ends.reason is None
        assert probes <= 16 + 1 + seconds / SHORTEST_PROBE_GAP


def test_an_outage_that_lasts_too_long_ends_the_run() -> None:
    port = free_port()
    parameters = {**QUICK, "outage_seconds": 0.7, "max_probe_seconds": 0.5}
    with behind(f"http://127.0.0.1:{port}/v1/chat/completions", ("retry", parameters)) as proxy:
        replies = ask_all(proxy.url, ["a", "b", "c"])
        assert [reply.status for reply in replies] == [503] * 3
        assert {reply.json()["error"]["type"] for reply in replies} == {"run_ended"}
        reason = proxy.ends.reason or ""
        # 0.7 s, or longer where the machine is busy.
        assert re.search(rf"127\.0\.0\.1:{port} has been unreachable for [1-9]\d* s", reason)
        assert proxy.ends.kind == "outage"
        sent = proxy.stats().sent
        assert Client().post(proxy.url, chat("d")).status == 503
        assert proxy.stats().sent == sent


def test_who_leaves_during_an_outage_is_never_asked_for() -> None:
    port = free_port()
    with behind(f"http://127.0.0.1:{port}/v1/chat/completions", ("retry", QUICK)) as proxy:
        with left_open(proxy.url, json.dumps(chat("gone")).encode()):
            until(lambda: proxy.stats().sent >= 1)
        until(lambda: proxy.stats().abandoned == 1)
        with FakeEndpoint(port=port) as endpoint:
            assert Client().post(proxy.url, chat("there")).status == 200
            assert set(of_prompts(endpoint)) == {"there"}


def test_a_gateway_without_its_model_is_an_outage(serve: Serve) -> None:
    is_up, asked = False, 0

    async def handle(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if is_up:
            return web.json_response({"choices": [{"message": {"content": "x"}}]})
        return web.Response(status=502, text="bad gateway")

    with (
        behind(f"{serve(handle)}/v1/chat/completions", ("retry", {"max_probe_seconds": 0.5})) as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        replies = pool.submit(ask_all, proxy.url, [str(number) for number in range(12)], parallel=12)
        # Within a second or so nobody can tell; from then on one at a time asks.
        until(lambda: asked >= 12)
        begun = time.monotonic()
        until(lambda: time.monotonic() >= begun + 2)
        assert asked <= 3 * 12 + (time.monotonic() - begun) / SHORTEST_PROBE_GAP
        is_up = True
        assert [reply.status for reply in replies.result()] == [200] * 12


def test_a_request_that_its_endpoint_cannot_bear_is_no_outage() -> None:
    prompts = ["poison", *(f"question {number}" for number in range(20)), "poison too"]
    parameters = {**QUICK, "max_probes": 2, "max_probe_seconds": 0.5}
    with (
        FakeEndpoint(faults=[Fault("reset", match="poison")]) as endpoint,
        behind(endpoint.chat_url, ("retry", parameters)) as proxy,
    ):
        assert [reply.status for reply in ask_all(proxy.url, prompts, parallel=4)] == [502, *[200] * 20, 502]
        # When nobody else is there to tell, they look like an outage, but do not end the run.
        assert [reply.status for reply in ask_all(proxy.url, ["poison", "poison too"])] == [502, 502]
        assert proxy.ends.reason is None


@pytest.mark.parametrize(
    "parameters",
    [
        {"max_attempts": 0},
        {"statuses": [200]},
        {"base_seconds": 2, "max_wait_seconds": 1},
        {"max_probe_seconds": 0.1},
        {"outage_seconds": -1},
        {"attempts": 3},
    ],
)
def test_contradictions_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RetryParameters.model_validate(parameters)
