from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve
from tests.adapters.interceptors.conftest import Behind, Recorder

from nemo_evaluator.adapters.proxy import ProxyOptions, Upstream, running_proxy
from nemo_evaluator.adapters.registry import BUILT_IN, check
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}


class Picky:
    """Refuses requests that have a parameter with what `say` says about it."""

    def __init__(self, *names: str, say: Callable[[str], Any]) -> None:
        self.names = names
        self.say = say
        self.bodies: list[dict[str, Any]] = []
        self.status = 400

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        found = next((name for name in self.names if name in body), None)
        if found is None:
            return web.json_response(ANSWER)
        return web.json_response(self.say(found), status=self.status)


def unsupported(name: str) -> dict[str, Any]:
    return {"error": {"message": f"Unsupported parameter: '{name}' is not supported with this model.", "param": name}}


def chain(when: str, *params: str) -> list[InterceptorConfig]:
    return [InterceptorConfig(name="drop_params", config={"params": list(params), "when": when})]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (["seed"], {"options": {"usage": True, "x": 1}, "messages": [{"role": "user", "name": "u"}, "odd"]}),
        (["options.usage"], {"seed": 1, "options": {"x": 1}, "messages": [{"role": "user", "name": "u"}, "odd"]}),
        (["messages.*.name"], {"seed": 1, "options": {"usage": True, "x": 1}, "messages": [{"role": "user"}, "odd"]}),
        (["messages.0.name", "seed"], {"options": {"usage": True, "x": 1}, "messages": [{"role": "user"}, "odd"]}),
    ],
)
def test_parameters_are_dropped(
    behind: Behind, client: Client, recorder: Recorder, params: list[str], expected: dict[str, Any]
) -> None:
    proxy = behind(("drop_params", {"params": params}))
    body = {"seed": 1, "options": {"usage": True, "x": 1}, "messages": [{"role": "user", "name": "u"}, "odd"]}
    assert client.post(proxy.url, body).status == 200
    assert recorder.bodies == [expected]


@pytest.mark.parametrize("when", ["always", "rejected"])
@pytest.mark.parametrize("body", [b'{ "a" : 1.50 }', b"[1]", b""])
def test_a_body_without_them_keeps_its_bytes(
    behind: Behind, client: Client, recorder: Recorder, body: bytes, when: str
) -> None:
    proxy = behind(("drop_params", {"params": ["seed", "messages.*.name"], "when": when}))
    assert client.post(proxy.url, body).status == 200
    assert recorder.headers[0].get("content-length", "0") == str(len(body))


@pytest.mark.parametrize("body", [b"no json", b"\xff\xfe"])
def test_what_is_no_json_passes(serve: Serve, client: Client, body: bytes) -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.json_response(ANSWER)

    with running_proxy(Upstream(f"{serve(handle)}/v1/audio/transcriptions"), chain("always", "seed")) as proxy:
        assert client.post(proxy.url, body).status == 200
    assert seen == [body]


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (400, unsupported("seed")),
        (400, {"error": {"message": "Unrecognized request argument supplied: seed", "param": None}}),
        (400, {"error": {"message": "unknown field", "param": "seed", "type": "invalid_request_error"}}),
        (400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra'}]"}),
        (
            422,
            {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
        ),
        (422, {"detail": "property 'seed' is unsupported"}),
        (400, "seed: this model does not support it"),
    ],
)
def test_a_refused_parameter_is_dropped_from_then_on(
    serve: Serve, client: Client, caplog: pytest.LogCaptureFixture, status: int, refusal: Any
) -> None:
    picky = Picky("seed", say=lambda _name: refusal)
    picky.status = status
    with running_proxy(Upstream(f"{serve(picky.answer)}/v1/chat/completions"), chain("rejected", "seed", "n")) as proxy:
        for number in range(3):
            reply = client.post(proxy.url, {"seed": number, "n": 1})
            assert (reply.status, reply.json()) == (200, ANSWER)
        stats = proxy.stats()
    assert picky.bodies == [{"seed": 0, "n": 1}, *[{"n": 1}] * 3]
    assert (stats.requests, stats.answered, stats.sent, stats.retried) == (3, 3, 4, 1)
    assert caplog.text.count("'seed'") == 1


@pytest.mark.parametrize(
    "refusal",
    [
        {"error": {"message": "the value of seed must be an integer", "param": "seed", "code": "invalid_value"}},
        {"error": {"message": "unknown model 'm'", "param": "model"}},
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "foo"], "msg": "Extra", "input": {"seed": 1}}]},
        {"error": {"message": "Unsupported parameter: 'seed_value'"}},
    ],
)
def test_other_refusals_reach_the_harness(serve: Serve, client: Client, refusal: Any) -> None:
    picky = Picky("seed", say=lambda _name: refusal)
    with running_proxy(Upstream(f"{serve(picky.answer)}/v1/chat/completions"), chain("rejected", "seed")) as proxy:
        reply = client.post(proxy.url, {"seed": 1})
        assert (reply.status, reply.json()) == (400, refusal)
    assert picky.bodies == [{"seed": 1}]


def test_several_refused_one_after_another_are_all_dropped(serve: Serve, client: Client) -> None:
    picky = Picky("seed", "n", "logit_bias", say=unsupported)
    params = ("seed", "n", "logit_bias", "user")
    with running_proxy(Upstream(f"{serve(picky.answer)}/v1/chat/completions"), chain("rejected", *params)) as proxy:
        assert client.post(proxy.url, {"seed": 1, "n": 1, "logit_bias": {}, "user": "u"}).status == 200
    assert picky.bodies[-1] == {"user": "u"}
    assert len(picky.bodies) == 4


def test_an_endpoint_that_goes_on_refusing_is_not_asked_for_ever(serve: Serve, client: Client) -> None:
    bodies = []

    async def handle(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response(unsupported("seed"), status=400)

    with running_proxy(Upstream(f"{serve(handle)}/v1/chat/completions"), chain("rejected", "seed", "n")) as proxy:
        for _ in range(2):
            assert client.post(proxy.url, {"seed": 1}).status == 400
    assert bodies == [{"seed": 1}, {}, {}]


def test_requests_under_way_together_all_get_their_answer(serve: Serve, client: Client) -> None:
    picky = Picky("seed", say=unsupported)
    with running_proxy(Upstream(f"{serve(picky.answer)}/v1/chat/completions"), chain("rejected", "seed", "n")) as proxy:
        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda number: client.post(proxy.url, {"seed": 1, "x": number}), range(32)))
        assert [reply.status for reply in replies] == [200] * 32
    answered = [body["x"] for body in picky.bodies if "seed" not in body]
    assert sorted(answered) == list(range(32))


def test_interceptors_further_in_change_the_repetition_once(serve: Serve, client: Client) -> None:
    picky = Picky("seed", say=unsupported)
    links = [*chain("rejected", "seed"), InterceptorConfig(name="system_message", config={"system_message": "Brief."})]
    with running_proxy(Upstream(f"{serve(picky.answer)}/v1/chat/completions"), links) as proxy:
        assert client.post(proxy.url, {"seed": 1, "messages": []}).status == 200
    assert picky.bodies[1] == {"messages": [{"role": "system", "content": "Brief."}]}


def test_a_resumed_run_knows_what_was_refused(serve: Serve, client: Client, tmp_path: Path) -> None:
    picky = Picky("seed", say=unsupported)
    upstream, links = Upstream(f"{serve(picky.answer)}/v1/chat/completions"), chain("rejected", "seed", "n")
    options = ProxyOptions(output_dir=tmp_path)
    for _ in range(2):
        with running_proxy(upstream, links, options=options) as proxy:
            assert client.post(proxy.url, {"seed": 1}).status == 200
    assert picky.bodies == [{"seed": 1}, {}, {}]
    elsewhere = Upstream(f"{serve(picky.answer)}/v1/chat/completions")
    with running_proxy(elsewhere, links, options=options) as proxy:
        assert client.post(proxy.url, {"seed": 1}).status == 200
    assert picky.bodies[3:] == [{"seed": 1}, {}]
    assert len(json.loads((tmp_path / "dropped_params.json").read_text())) == 2


@pytest.mark.parametrize("params", [[], ["a..b"], [""], ["messages.*"], ["*.name"]])
def test_paths_that_lead_nowhere_are_refused(params: list[str]) -> None:
    with pytest.raises(MisconfigurationError, match="drop_params"):
        check(InterceptorConfig(name="drop_params", config={"params": params}), place="chain", known=BUILT_IN)
