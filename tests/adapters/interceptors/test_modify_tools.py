from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve
from tests.adapters.interceptors.conftest import Behind, Recorder

from nemo_evaluator.adapters.proxy import Upstream, running_proxy
from nemo_evaluator.adapters.registry import BUILT_IN, check
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError

USER = {"role": "user", "content": "What is the weather?"}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **more}}


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"remove": ["b", "absent"]}, [tool("a")]),
        ({"add": [tool("c")]}, [tool("a"), tool("b"), tool("c")]),
        ({"add": [{"name": "c"}]}, [tool("a"), tool("b"), {"type": "function", "function": {"name": "c"}}]),
        ({"replace": {"a": tool("a", description="new")}}, [tool("a", description="new"), tool("b")]),
        ({"descriptions": {"b": "does it"}}, [tool("a"), tool("b", description="does it")]),
        ({"rename": {"a": "x"}}, [tool("x"), tool("b")]),
        ({"rename": {"a": "b", "b": "a"}}, [tool("b"), tool("a")]),
        ({"strict": True}, [tool("a", strict=True), tool("b", strict=True)]),
        (
            {"remove": ["b"], "replace": {"a": {"name": "a"}}, "descriptions": {"a": "d"}, "rename": {"a": "z"}},
            [{"type": "function", "function": {"name": "z", "description": "d"}}],
        ),
    ],
)
def test_tools_are_changed(
    behind: Behind, client: Client, recorder: Recorder, parameters: dict[str, Any], expected: list[Any]
) -> None:
    proxy = behind(("modify_tools", parameters))
    body = {"model": "m", "messages": [USER], "tools": [tool("a"), tool("b")]}
    for _ in range(2):
        assert client.post(proxy.url, body).status == 200
    assert recorder.bodies == [{**body, "tools": expected}] * 2


def test_the_older_form_is_changed_too(behind: Behind, client: Client, recorder: Recorder) -> None:
    parameters = {"remove": ["b"], "add": [tool("c")], "rename": {"a": "x"}, "strict": True, "tool_choice": "auto"}
    proxy = behind(("modify_tools", parameters))
    recorder.body = b'{"choices": [{"message": {"content": null, "function_call": {"name": "x", "arguments": "{}"}}}]}'
    history = {"role": "assistant", "content": None, "function_call": {"name": "a", "arguments": "{}"}}
    body = {"messages": [USER, history, {"role": "function", "name": "a", "content": "1"}]}
    functions = [{"name": "a"}, {"name": "b"}]
    reply = client.post(proxy.url, body | {"functions": functions, "function_call": {"name": "a"}})
    assert reply.json()["choices"][0]["message"]["function_call"]["name"] == "a"
    assert recorder.bodies == [
        {
            "messages": [
                USER,
                {**history, "function_call": {"name": "x", "arguments": "{}"}},
                {"role": "function", "name": "x", "content": "1"},
            ],
            "functions": [{"name": "x"}, {"name": "c", "parameters": {"type": "object"}}],
            "function_call": "auto",
        }
    ]


@pytest.mark.parametrize(
    ("parameters", "choice", "expected"),
    [
        ({"tool_choice": "required"}, "auto", "required"),
        ({"tool_choice": "none"}, None, "none"),
        ({"rename": {"a": "x"}}, {"type": "function", "function": {"name": "a"}}, {"name": "x"}),
        ({"remove": ["a"]}, {"type": "function", "function": {"name": "a"}}, None),
        ({"remove": ["a", "b"]}, "required", None),
    ],
)
def test_the_choice_fits_the_tools(
    behind: Behind, client: Client, recorder: Recorder, *, parameters: dict[str, Any], choice: Any, expected: Any
) -> None:
    proxy = behind(("modify_tools", parameters))
    body = {"messages": [USER], "tools": [tool("a"), tool("b")]} | ({"tool_choice": choice} if choice else {})
    client.post(proxy.url, body)
    sent = recorder.bodies[0].get("tool_choice")
    assert (sent["function"] if isinstance(sent, dict) else sent) == expected
    assert ("tools" in recorder.bodies[0]) == (parameters != {"remove": ["a", "b"]})


def test_tools_can_be_given_to_requests_without_any(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("modify_tools", {"add": [tool("c")], "tool_choice": "required"}))
    client.post(proxy.url, {"messages": [USER]})
    assert recorder.bodies == [{"messages": [USER], "tools": [tool("c")], "tool_choice": "required"}]


@pytest.mark.parametrize("body", [{"prompt": "x"}, {"input": ["x"]}, {"messages": "none", "tools": []}])
def test_other_requests_pass(behind: Behind, client: Client, recorder: Recorder, body: dict[str, Any]) -> None:
    proxy = behind(("modify_tools", {"add": [tool("c")]}))
    assert client.post(proxy.url, body).status == 200
    assert recorder.bodies == [body]


def test_what_is_no_json_passes(serve: Serve, client: Client) -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.json_response({"text": "a"})

    chain = [InterceptorConfig(name="modify_tools", config={"add": [tool("c")]})]
    with running_proxy(Upstream(f"{serve(handle)}/v1/chat/completions"), chain) as proxy:
        url = proxy.url.removesuffix("/chat/completions") + "/audio/transcriptions"
        assert client.post(url, b"\xff\x00").status == 200
    assert seen == [b"\xff\x00"]


@pytest.mark.parametrize("parameters", [{"add": [tool("a")]}, {"rename": {"b": "a"}}])
def test_two_tools_of_one_name_fail_the_request(
    behind: Behind, client: Client, recorder: Recorder, parameters: dict[str, Any]
) -> None:
    proxy = behind(("modify_tools", parameters))
    reply = client.post(proxy.url, {"messages": [USER], "tools": [tool("a"), tool("b")]})
    assert (reply.status, reply.json()["error"]["code"]) == (500, "modify_tools")
    assert "two tools named 'a'" in reply.json()["error"]["message"]
    assert recorder.bodies == []


def test_the_harness_sees_its_own_names(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(("modify_tools", {"rename": {"weather": "get_weather"}}))
    calls = [{"id": "1", "function": {"name": "get_weather", "arguments": '{"at": "get_weather"}'}}]
    recorder.body = json.dumps({"choices": [{"message": {"content": "get_weather", "tool_calls": calls}}]}).encode()
    history = {"role": "assistant", "tool_calls": [{"id": "0", "function": {"name": "weather", "arguments": "{}"}}]}
    result = {"role": "tool", "tool_call_id": "0", "name": "weather", "content": "sunny"}
    reply = client.post(proxy.url, {"messages": [USER, history, result], "tools": [tool("weather")]})
    assert reply.json() == {
        "choices": [
            {
                "message": {
                    "content": "get_weather",
                    "tool_calls": [{"id": "1", "function": {"name": "weather", "arguments": '{"at": "get_weather"}'}}],
                }
            }
        ]
    }
    sent = recorder.bodies[0]["messages"]
    assert sent[1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert sent[2]["name"] == "get_weather"


EVENTS = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n',
    b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "get_weather"',
    b', "arguments": ""}}]}}]}\r\n\r\n',
    (
        b'data: {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]}\n\n'
        b'data: {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}\n\n'
    ),
    b"data: [DONE]\n\n",
)


@pytest.mark.parametrize("packed", [False, True])
def test_names_in_streams_are_restored_and_nothing_is_held_back(serve: Serve, *, packed: bool) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream"} | ({"Content-Encoding": "gzip"} if packed else {})
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if packed:
            await response.write(gzip.compress(b"".join(EVENTS)))
        else:
            for number, event in enumerate(EVENTS):
                await response.write(event)
                if number == 0:
                    # The reader must have the first event before the next one comes.
                    await asyncio.to_thread(may_go_on.wait, 10)
        await response.write_eof()
        return response

    may_go_on = threading.Event()
    chain = [InterceptorConfig(name="modify_tools", config={"rename": {"weather": "get_weather"}})]
    with running_proxy(Upstream(f"{serve(handle)}/v1/chat/completions"), chain) as proxy:
        parts = urlsplit(proxy.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        body = json.dumps({"messages": [USER], "tools": [tool("weather")], "stream": True})
        connection.request("POST", parts.path, body, {"Content-Type": "application/json", "Accept-Encoding": "gzip"})
        response = connection.getresponse()
        text = b""
        while b"\n\n" not in text:
            text += response.read1()
        may_go_on.set()
        text += response.read()
        connection.close()
        stats = proxy.stats()
    lines = [line for line in text.split(b"\n") if line.startswith(b"data:")]
    events = [json.loads(line[5:]) for line in lines[:-1]]
    assert events[0]["choices"][0]["delta"] == {"content": "x"}
    assert events[1]["choices"][0]["delta"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": ""}
    assert events[2]["choices"][0]["delta"]["tool_calls"][0]["function"] == {"arguments": "{}"}
    assert lines[-1] == b"data: [DONE]"
    assert b"get_weather" not in text
    assert (stats.answered, stats.finish_reasons) == (1, {"tool_calls": 1})


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, "nothing to do"),
        ({"replace": {"a": tool("b")}}, "keep the name"),
        ({"add": [{"type": "function"}]}, "needs a 'name'"),
        ({"add": [{"type": "retrieval", "function": {"name": "a"}}]}, "a tool is"),
        ({"add": [tool("a", parameter={})]}, "unknown key 'parameter'"),
        ({"add": [{"name": "a", "parameters": []}]}, "JSON schema"),
        ({"add": [{"name": "a", "parameters": {"x": float("nan")}}]}, "modify_tools"),
        ({"add": [tool("a"), tool("a")]}, "added twice"),
        ({"rename": {"a": "x", "b": "x"}}, "renamed to 'x'"),
        ({"rename": {"a": "no spaces"}}, "rename"),
        ({"remove": ["a"], "descriptions": {"a": "d"}}, "removed and changed"),
        ({"tool_choice": "any"}, "tool_choice"),
    ],
)
def test_what_cannot_be_meant_is_refused(parameters: dict[str, Any], expected: str) -> None:
    with pytest.raises(MisconfigurationError) as caught:
        check(InterceptorConfig(name="modify_tools", config=parameters), place="chain", known=BUILT_IN)
    assert expected in str(caught.value)
