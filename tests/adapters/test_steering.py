from __future__ import annotations

import pytest

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import NamedInterceptor
from nemo_evaluator.adapters.interceptors.concurrency import Concurrency, ConcurrencyParameters
from nemo_evaluator.adapters.steering import EndpointLimit, Steering, steerable
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.errors import UsageError


@pytest.fixture
def contexts() -> dict[str, Context]:
    """A model and two judges, one of which is at the model's own endpoint."""
    shared: dict[tuple[type, str], object] = {}
    urls = {"model": "http://a:1/v1/chat/completions", "judge": "http://b:1/v1", "critic": "http://a:1/v1"}
    return {
        name: Context(upstream=Upstream(url), name=name, shared_objects=shared)
        for name, url in urls.items()
    }  # fmt: skip


def idle(limit: int | None = None, *, paused: bool = False) -> EndpointLimit:
    return EndpointLimit(limit=limit, in_use=0, waiting=0, paused=paused)


def test_all_endpoints_are_paused_together(contexts: dict[str, Context]) -> None:
    steering = Steering(contexts)

    steering.pause()
    assert set(steering.limits().values()) == {idle(paused=True)}
    steering.resume()
    assert set(steering.limits().values()) == {idle()}


def test_a_limit_is_one_endpoint_s_or_everybody_s(contexts: dict[str, Context]) -> None:
    steering = Steering(contexts)

    steering.set_concurrency(2, "judge")
    assert steering.limits() == {"model": idle(), "judge": idle(2), "critic": idle()}
    steering.set_concurrency(5)
    assert steering.limits() == {"model": idle(5), "judge": idle(5), "critic": idle(5)}
    steering.set_concurrency(None)
    assert set(steering.limits().values()) == {idle()}


def test_endpoints_of_one_origin_share_their_limit(contexts: dict[str, Context]) -> None:
    steering = Steering(contexts)

    steering.set_concurrency(3, "critic")

    assert steering.limits() == {"model": idle(3), "judge": idle(), "critic": idle(3)}


def test_an_unknown_endpoint_is_named(contexts: dict[str, Context]) -> None:
    with pytest.raises(UsageError, match=r"there is no endpoint 'juge'\. Did you mean 'judge'\? Known: model, judge"):
        Steering(contexts).set_concurrency(3, "juge")


def test_a_chain_without_a_limiter_gets_one_and_no_other_does(contexts: dict[str, Context]) -> None:
    context = contexts["model"]
    configured = NamedInterceptor("concurrency", Concurrency(ConcurrencyParameters(max=4), context))

    assert steerable([configured], context) == [configured]
    (added,) = steerable([], context)
    assert added.name == "concurrency"
