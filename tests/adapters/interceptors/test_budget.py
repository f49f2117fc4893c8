from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict
from pydantic import ValidationError
from tests.adapters.conftest import Client, Reply
from tests.adapters.interceptors.crowd import ask_all, behind, chat, in_loop, left_open, links, until

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.interceptors.budget import Budget, BudgetParameters
from nemo_evaluator.adapters.ledger import ledger_of
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.proxy import ProxyOptions, Route, Upstream, running_proxy
from nemo_evaluator.errors import MisconfigurationError
from nemo_evaluator.testing import FakeEndpoint, Fault

PROMPTS = [f"q{number}" for number in range(40)]
ANSWER = "one two three four"
TOKENS = 5
"""Of each exchange: a prompt of one word, an answer of four."""

PRICES = {"fake-*": {"input": 100_000, "output": 500_000, "request": 0.5}}
COST = 0.1 + 4 * 0.5 + 0.5


def answered(replies: list[Reply]) -> int:
    """How many were answered; all the others were refused because the run has ended."""
    refused = [reply for reply in replies if reply.status != 200]
    assert all(reply.status == 402 and reply.json()["error"]["type"] == "run_ended" for reply in refused)
    return len(replies) - len(refused)


def spent(folder: Path, name: str = "model") -> dict[str, Any]:
    document = json.loads((folder / "budget.json").read_text())
    amounts: dict[str, Any] = document["endpoints"][name]
    return amounts


def test_a_limit_on_requests_is_kept_exactly_and_loses_no_answer() -> None:
    with (
        FakeEndpoint(latency=0.02) as endpoint,
        behind(endpoint.chat_url, ("budget", {"max_requests": 13})) as proxy,
    ):
        assert answered(ask_all(proxy.url, PROMPTS)) == 13
        assert endpoint.count == 13
        assert proxy.ends.kind == "budget"
        assert "13 of max_requests 13. 13 answers are kept" in (proxy.ends.reason or "")


def test_repetitions_count_as_requests() -> None:
    with (
        FakeEndpoint(faults=[Fault(500, match="q0", first_per_prompt=2)]) as endpoint,
        behind(endpoint.chat_url, ("retry", {"base_seconds": 0.01}), ("budget", {"max_requests": 4})) as proxy,
    ):
        assert answered(ask_all(proxy.url, PROMPTS[:3], parallel=1)) == 2
        assert endpoint.count == 4


def test_a_run_that_needs_no_more_than_its_budget_does_not_end_early() -> None:
    with (
        FakeEndpoint(ANSWER) as endpoint,
        behind(endpoint.chat_url, ("budget", {"max_tokens": 40 * TOKENS, "max_requests": 40})) as proxy,
    ):
        assert answered(ask_all(proxy.url, PROMPTS)) == 40
        assert proxy.ends.reason is None


@pytest.mark.parametrize(
    ("parameters", "each"),
    [
        ({"max_tokens": 101}, TOKENS),
        ({"max_completion_tokens": 81}, 4),
        ({"max_cost": 50.1, "prices": PRICES}, COST),
    ],
)
def test_the_excess_is_at_most_what_is_under_way(parameters: dict[str, Any], each: float, tmp_path: Path) -> None:
    limit = next(value for name, value in parameters.items() if name.startswith("max"))
    with FakeEndpoint(ANSWER, latency=0.02) as endpoint:
        options = ProxyOptions(output_dir=tmp_path)
        with behind(endpoint.chat_url, ("budget", parameters), options=options) as proxy:
            count = answered(ask_all(proxy.url, PROMPTS))
        assert endpoint.count == count
        # The first eight are sent before anything is known; the mean of their answers tells the rest.
        assert limit <= count * each < limit + 2 * each
        assert spent(tmp_path)["answers"] == count


def test_what_failed_costs_what_it_reports() -> None:
    with (
        FakeEndpoint(ANSWER, faults=[Fault(500)]) as endpoint,
        behind(endpoint.chat_url, ("budget", {"max_tokens": 1})) as proxy,
    ):
        assert [reply.status for reply in ask_all(proxy.url, PROMPTS[:5])] == [500] * 5


def test_a_budget_lasts_over_several_starts(tmp_path: Path) -> None:
    options = ProxyOptions(output_dir=tmp_path)
    link = ("budget", {"max_requests": 10, "max_cost": 1000, "prices": PRICES})
    with FakeEndpoint(ANSWER) as endpoint:
        for expected in (6, 4, 0):
            with behind(endpoint.chat_url, link, options=options) as proxy:
                assert answered(ask_all(proxy.url, PROMPTS[:6], parallel=2)) == expected
        assert endpoint.count == 10
    assert spent(tmp_path) == {
        "requests": 10,
        "answers": 10,
        "prompt_tokens": 10,
        "completion_tokens": 40,
        "cost": pytest.approx(10 * COST),
    }
    with FakeEndpoint(ANSWER) as endpoint:
        raised = ("budget", {"max_requests": 12})
        with behind(endpoint.chat_url, raised, options=options) as proxy:
            assert answered(ask_all(proxy.url, PROMPTS[:6], parallel=2)) == 2


def test_what_was_spent_is_saved_while_the_run_goes_on(tmp_path: Path) -> None:
    with (
        FakeEndpoint(ANSWER) as endpoint,
        behind(endpoint.chat_url, ("budget", {"max_requests": 10}), options=ProxyOptions(output_dir=tmp_path)) as proxy,
    ):
        ask_all(proxy.url, PROMPTS[:6])
        until((tmp_path / "budget.json").exists)
        assert spent(tmp_path)["answers"] == 6


def test_a_damaged_file_is_not_taken_for_an_unused_budget(tmp_path: Path) -> None:
    for text in ("", "{}", '{"version": 9}', '{"version": 1, "currency": null, "endpoints": {"model": {}}}'):
        (tmp_path / "budget.json").write_text(text)
        with (
            pytest.raises(MisconfigurationError, match=r"budget\.json"),
            behind("http://127.0.0.1:1/v1", ("budget", {"max_requests": 1}), options=ProxyOptions(output_dir=tmp_path)),
        ):
            pass


def routes(endpoint: FakeEndpoint, parameters: dict[str, Any]) -> list[Route]:
    chain = tuple(links(("budget", parameters)))
    return [Route(upstream=Upstream(endpoint.chat_url), name=name, chain=chain) for name in ("model", "judge")]


@pytest.mark.parametrize(("scope", "expected"), [("run", 10), ("endpoint", 16)])
def test_model_and_judge_share_a_budget_unless_told_otherwise(scope: str, expected: int, tmp_path: Path) -> None:
    with FakeEndpoint(ANSWER, latency=0.01) as endpoint:
        model, judge = routes(endpoint, {"max_requests": 10, "scope": scope})
        with running_proxy(model, others=[judge], options=ProxyOptions(output_dir=tmp_path)) as proxy:
            count = answered(ask_all(proxy.url, PROMPTS[:6])) + answered(ask_all(proxy.url_of("judge"), PROMPTS))
        assert count == expected
        assert endpoint.count == expected
    assert spent(tmp_path, "judge")["requests"] == expected - 6


def test_a_model_without_a_price_is_never_paid_for() -> None:
    with (
        FakeEndpoint(ANSWER) as endpoint,
        behind(endpoint.chat_url, ("budget", {"max_cost": 1, "prices": {"other": {"input": 1}}})) as proxy,
    ):
        assert answered(ask_all(proxy.url, PROMPTS[:3])) == 0
        assert endpoint.count == 0
        assert "no price for the model 'fake-model'" in (proxy.ends.reason or "")


@pytest.mark.parametrize("parameters", [{"max_tokens": 100}, {"max_cost": 100, "prices": PRICES}])
def test_an_answer_without_usage_ends_the_run_unless_told_otherwise(parameters: dict[str, Any]) -> None:
    with FakeEndpoint(ANSWER) as endpoint:
        with behind(endpoint.chat_url, ("budget", parameters)) as proxy:
            assert answered(ask_all(proxy.url, PROMPTS[:3], parallel=1, stream=True)) == 1
            assert "does not report its tokens" in (proxy.ends.reason or "")
        for changed, more in (({"missing_usage": "ignore"}, {}), ({}, {"stream_options": {"include_usage": True}})):
            with behind(endpoint.chat_url, ("budget", {**parameters, **changed})) as proxy:
                assert answered(ask_all(proxy.url, PROMPTS[:3], parallel=1, stream=True, **more)) == 3


def test_what_might_not_fit_waits_for_what_is_under_way() -> None:
    with (
        FakeEndpoint(latency=lambda request: 0.4 if request.prompt == "slow" else 0.0) as endpoint,
        behind(endpoint.chat_url, ("budget", {"max_requests": 1})) as proxy,
        ThreadPoolExecutor(4) as pool,
    ):
        slow = pool.submit(Client().post, proxy.url, chat("slow"))
        until(lambda: endpoint.count == 1)
        with left_open(proxy.url, json.dumps(chat("gone")).encode()):
            until(lambda: proxy.stats().requests == 2)
        late = [pool.submit(Client().post, proxy.url, chat("late")) for _ in range(3)]
        assert slow.result().status == 200
        assert [reply.result().status for reply in late] == [402] * 3


@in_loop
async def test_each_exchange_is_told_its_cost() -> None:
    context = Context(upstream=Upstream("http://127.0.0.1:1/v1/chat/completions"))
    prices = {"m": {"input": 2, "cached_input": 1, "output": 4}}
    budget = Budget(BudgetParameters.model_validate({"prices": prices}), context)

    async def answer(_: Request) -> Response:
        exchange = Exchange(200)
        exchange.facts.prompt_tokens, exchange.facts.cached_tokens = 3_000_000, 1_000_000
        exchange.facts.completion_tokens = 500_000
        exchange.end()
        return Response(200, CIMultiDict(), b"{}", exchange=exchange)

    async def cost(body: bytes) -> float | None:
        response = await budget(Request("POST", "http://127.0.0.1:1/v1", CIMultiDict(), body), answer)
        assert response.exchange is not None
        return response.exchange.cost

    assert await cost(b'{"model": "m"}') == pytest.approx(4 + 1 + 2)
    assert await cost(b'{"model": "n"}') is None
    assert await cost(b"no JSON") is None
    assert ledger_of(context).total().cost == pytest.approx(7)
    assert ledger_of(context).currency == "USD"
    assert context.stats.snapshot().cost == pytest.approx(7)


def test_prices_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "prices.yml").write_text("fake-model: {input: 1, output: 2}\n")
    read = BudgetParameters.model_validate({"prices": str(tmp_path / "prices.yml"), "max_cost": 1})
    assert read.prices is not None
    assert read.prices["fake-model"].output == 2
    (tmp_path / "prices.json").write_text('["fake-model"]')
    for name in ("prices.json", "none.yml"):
        with pytest.raises(MisconfigurationError, match=name):
            BudgetParameters.model_validate({"prices": str(tmp_path / name)})


def test_costs_in_two_currencies_are_not_added() -> None:
    shared: dict[tuple[type, str], Any] = {}
    upstream = Upstream("http://127.0.0.1:1/v1")
    parameters = {"prices": PRICES, "currency": "EUR"}
    Budget(BudgetParameters.model_validate(parameters), Context(upstream=upstream, shared_objects=shared))
    other = BudgetParameters.model_validate({**parameters, "currency": "USD"})
    with pytest.raises(MisconfigurationError, match="EUR"):
        Budget(other, Context(upstream=upstream, name="judge", shared_objects=shared))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_requests": 0},
        {"max_cost": 5},
        {"max_cost": 5, "prices": {}},
        {"prices": {"m": {"input": -1}}},
        {"prices": {"m": {"price": 1}}},
        {"max_requests": 1, "missing_usage": "guess"},
    ],
)
def test_contradictions_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BudgetParameters.model_validate(parameters)
