from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from multidict import CIMultiDict
from pydantic import ValidationError
from tests.adapters.conftest import Client
from tests.adapters.interceptors.crowd import ask_all, behind, chat, in_loop, left_open, links, until

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.interceptors.concurrency import Concurrency, ConcurrencyParameters
from nemo_evaluator.adapters.limiter import limiter_of
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.proxy import Route, Upstream, running_proxy
from nemo_evaluator.testing import FakeEndpoint, Fault, ModelRequest

QUICK: dict[str, Any] = {"base_seconds": 0.02, "max_wait_seconds": 0.1}
PROMPTS = [f"question {number}" for number in range(40)]


def test_no_more_requests_are_under_way_than_allowed() -> None:
    with (
        FakeEndpoint(latency=0.02) as endpoint,
        behind(endpoint.chat_url, ("concurrency", {"max": 3})) as proxy,
    ):
        assert {reply.status for reply in ask_all(proxy.url, PROMPTS, parallel=12)} == {200}
        assert endpoint.stats["max_in_flight"] == 3


def test_without_push_back_there_is_no_limit() -> None:
    def latency(request: ModelRequest) -> float:
        return 0.3 if request.index % 5 == 0 else 0.01

    with FakeEndpoint(latency=latency) as endpoint, behind(endpoint.chat_url, ("concurrency", {})) as proxy:
        ask_all(proxy.url, PROMPTS, parallel=20)
        assert {reply.status for reply in ask_all(proxy.url, PROMPTS[:20], parallel=20)} == {200}
        assert endpoint.stats["max_in_flight"] > 10


def test_a_storm_of_refusals_ends_and_everything_is_answered() -> None:
    prompts = [f"question {number}" for number in range(300)]
    with (
        FakeEndpoint(max_concurrent=8, latency=0.02) as endpoint,
        behind(endpoint.chat_url, ("retry", QUICK), ("concurrency", {})) as proxy,
    ):
        assert {reply.status for reply in ask_all(proxy.url, prompts, parallel=64)} == {200}
        refused = endpoint.stats["by_status"]["429"]
        # Those that came at once are 56; afterwards one here and there asks whether more can be borne by now.
        assert refused <= 56 + 60
        stats = proxy.stats()
        assert (stats.sent, stats.retried) == (endpoint.count, refused)
        endpoint.clear()
        assert {reply.status for reply in ask_all(proxy.url, prompts, parallel=64)} == {200}
        assert endpoint.stats["by_status"].get("429", 0) <= 15


def test_one_refusal_that_names_a_time_keeps_all_requests_back() -> None:
    faults = [Fault(429, at=(0,), retry_after=1)]
    with (
        FakeEndpoint(faults=faults) as endpoint,
        behind(endpoint.chat_url, ("retry", QUICK), ("concurrency", {})) as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(Client().post, proxy.url, chat("first"))
        until(lambda: len(endpoint.requests) == 1)
        time.sleep(0.05)
        assert Client().post(proxy.url, chat("second")).status == 200
        assert first.result().status == 200
        refused, *others = sorted(endpoint.requests, key=lambda request: request.index)
        assert all(other.at - refused.at >= 1 for other in others)


def test_a_stream_is_under_way_until_its_end() -> None:
    with (
        FakeEndpoint("one two three four", event_interval=0.02) as endpoint,
        behind(endpoint.chat_url, ("concurrency", {"max": 1})) as proxy,
    ):
        assert {reply.status for reply in ask_all(proxy.url, PROMPTS[:4], stream=True)} == {200}
        assert endpoint.stats["max_in_flight"] == 1


@pytest.mark.parametrize("kind", ["reset_mid_body", "malformed_json", "500", "hang,seconds=0.1"])
def test_no_slot_is_lost_by_failures(kind: str) -> None:
    with (
        FakeEndpoint(faults=[f"{kind},match=bad"]) as endpoint,
        behind(endpoint.chat_url, ("concurrency", {"max": 2})) as proxy,
    ):
        ask_all(proxy.url, ["bad"] * 6)
        assert {reply.status for reply in ask_all(proxy.url, PROMPTS[:4])} == {200}


@pytest.mark.parametrize("is_stream", [False, True])
def test_no_slot_is_lost_by_a_harness_that_leaves(*, is_stream: bool) -> None:
    with (
        FakeEndpoint(latency=lambda request: 30.0 if request.prompt == "slow" else 0.0) as endpoint,
        behind(endpoint.chat_url, ("concurrency", {"max": 1})) as proxy,
    ):
        slow = json.dumps(chat("slow", stream=is_stream)).encode()
        with left_open(proxy.url, slow):
            until(lambda: endpoint.count == 1)
            # The second one waits for the slot when it leaves.
            with left_open(proxy.url, slow):
                until(lambda: proxy.stats().requests == 2)
            until(lambda: proxy.stats().abandoned == 1)
        assert Client().post(proxy.url, chat("quick")).status == 200
        assert endpoint.count == 2


def test_model_and_judge_at_one_origin_share_the_limit() -> None:
    chain = tuple(links(("concurrency", {"max": 2})))
    with FakeEndpoint(latency=0.02) as endpoint:
        routes = [Route(upstream=Upstream(endpoint.chat_url), name=name, chain=chain) for name in ("model", "judge")]
        with running_proxy(routes[0], others=routes[1:]) as proxy, ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: ask_all(proxy.url_of(name), PROMPTS[:10]), ("model", "judge")))
        assert (endpoint.count, endpoint.stats["max_in_flight"]) == (20, 2)


def test_lists_of_models_are_not_held_up() -> None:
    with (
        FakeEndpoint(latency=0.5) as endpoint,
        behind(endpoint.chat_url, ("concurrency", {"max": 1})) as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        reply = pool.submit(Client().post, proxy.url, chat("x"))
        until(lambda: endpoint.stats["in_flight"] == 1)
        url = proxy.url.replace("/chat/completions", "/models")
        assert Client().ask("GET", url).status == 200
        assert endpoint.stats["in_flight"] == 1
        assert reply.result().status == 200


def _request() -> Request:
    return Request("POST", "http://127.0.0.1:1/v1/chat/completions", CIMultiDict(), b"{}")


def _answer(status: int, *, seconds: float = 0.0) -> Response:
    exchange = Exchange(status, first_byte_seconds=seconds)
    exchange.end()
    return Response(status, CIMultiDict(), b"{}", exchange=exchange)


def _interceptor(**parameters: Any) -> tuple[Concurrency, Context]:
    context = Context(upstream=Upstream("http://127.0.0.1:1/v1/chat/completions"))
    return Concurrency(ConcurrencyParameters.model_validate(parameters), context), context


async def _refuse(_: Request) -> Response:
    return _answer(503)


@in_loop
async def test_every_way_out_gives_the_slot_back() -> None:
    interceptor, context = _interceptor(max=1)
    limiter = limiter_of(context)

    async def fail(_: Request) -> Response:
        raise UpstreamFailure("gone", code="connection_failed")

    async def made_up(_: Request) -> Response:
        return Response(200, CIMultiDict(), b"{}")

    async def hang(_: Request) -> Response:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(UpstreamFailure):
        await interceptor(_request(), fail)
    assert limiter.in_use == 0
    await interceptor(_request(), made_up)
    assert limiter.in_use == 0
    tasks = [asyncio.create_task(interceptor(_request(), hang)) for _ in range(3)]
    await asyncio.sleep(0)
    assert (limiter.in_use, limiter.waiting) == (1, 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (limiter.in_use, limiter.waiting) == (0, 0)


@in_loop
async def test_the_limit_never_falls_below_the_least() -> None:
    interceptor, context = _interceptor(min=2)
    for _ in range(5):
        await interceptor(_request(), _refuse)
    assert limiter_of(context).limit == 2


@in_loop
async def test_push_back_is_ignored_when_that_is_wanted() -> None:
    interceptor, context = _interceptor(adaptive=False)
    await interceptor(_request(), _refuse)
    assert limiter_of(context).limit is None


@in_loop
async def test_slow_answers_lower_the_limit_when_a_bound_is_given() -> None:
    interceptor, context = _interceptor(latency_seconds=1)
    seconds = 5.0

    async def answer(_: Request) -> Response:
        await asyncio.sleep(0)
        return _answer(200, seconds=seconds)

    async def crowd() -> None:
        await asyncio.gather(*(interceptor(_request(), answer) for _ in range(20)))

    await crowd()
    await crowd()
    limit = limiter_of(context).limit
    assert limit is not None
    assert limit < 20
    seconds = 0.5
    for _ in range(30):
        await crowd()
    assert (limiter_of(context).limit or 0) > limit


@in_loop
async def test_requests_that_wait_when_the_run_ends_are_not_sent() -> None:
    interceptor, context = _interceptor(max=1)
    leave = asyncio.Event()
    sent = 0

    async def answer(_: Request) -> Response:
        nonlocal sent
        sent += 1
        await leave.wait()
        return _answer(200)

    tasks = [asyncio.create_task(interceptor(_request(), answer)) for _ in range(3)]
    await asyncio.sleep(0)
    context.ends.end("enough", "budget", status=402)
    leave.set()
    responses = await asyncio.gather(*tasks)
    assert [response.status for response in responses] == [200, 402, 402]
    assert sent == 1
    assert limiter_of(context).in_use == 0


@pytest.mark.parametrize(
    "parameters",
    [{"max": 0}, {"min": 3, "max": 2}, {"adaptive": False, "latency_seconds": 1}, {"latency_seconds": 0}, {"limit": 1}],
)
def test_contradictions_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ConcurrencyParameters.model_validate(parameters)
