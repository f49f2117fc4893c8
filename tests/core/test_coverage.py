from __future__ import annotations

import pytest
from tests.adapters.conftest import Client
from tests.adapters.interceptors.crowd import chat

from nemo_evaluator.adapters.proxy import Route, Upstream, running_proxy
from nemo_evaluator.adapters.stats import ProxyStats
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.core.coverage import coverage, refuse_unanswered
from nemo_evaluator.errors import EndpointError
from nemo_evaluator.testing import FakeEndpoint


def test_the_harness_counts_its_samples_and_the_proxy_the_requests() -> None:
    summary = {"coverage": {"planned": 3, "scored": 2, "failed": 1, "truncated": 1, "something_else": 7}}
    stats = ProxyStats(started=0.0, requests=5, answered=3, unusable=1, sent=4, retried=1, cached=2, not_stored=1)
    found = coverage(summary, stats)
    requests = found.pop("requests")
    assert found == {"planned": 3, "scored": 2, "failed": 1, "truncated": 1}
    assert (requests["sent"], requests["answered"], requests["failed"], requests["unusable"]) == (5, 3, 2, 1)
    assert (requests["exchanges"], requests["retried"], requests["cached"], requests["not_stored"]) == (4, 1, 2, 1)
    assert "samples" not in requests


def test_judges_have_numbers_of_their_own() -> None:
    client = Client()
    chain = (InterceptorConfig(name="finish_reason"),)
    with (
        FakeEndpoint("one two three") as model,
        FakeEndpoint("good") as judge,
        running_proxy(
            Route(upstream=Upstream(model.chat_url), chain=chain),
            others=[Route(upstream=Upstream(judge.chat_url), name="judge", chain=chain)],
        ) as proxy,
    ):
        client.post(proxy.url, chat("?", max_tokens=1))
        for question in ("a", "b"):
            client.post(proxy.url_of("judge"), chat(question))
        found = coverage(None, proxy.stats(), {"judge": proxy.stats("judge")})
    assert (found["requests"]["sent"], found["requests"]["samples"]["truncated"]) == (1, 1)
    judged = found["upstreams"]["judge"]
    assert (judged["sent"], judged["truncated"], judged["samples"]["truncated"]) == (2, 0, 0)


def test_a_run_without_any_answer_is_refused() -> None:
    refuse_unanswered(ProxyStats(started=0.0))
    refuse_unanswered(ProxyStats(started=0.0, requests=2, answered=1))
    with pytest.raises(EndpointError, match="all 2 requests to the endpoint failed"):
        refuse_unanswered(ProxyStats(started=0.0, requests=2, by_status={500: 2}))
