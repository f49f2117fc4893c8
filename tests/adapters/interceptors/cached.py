"""A model, and runs of it behind a chain with a store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.adapters.conftest import Client, Serve

from nemo_evaluator.adapters.proxy import ProxyOptions, Route, RunningProxy, Upstream, running_proxy
from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.adapters.store.record import Record
from nemo_evaluator.api.adapter_config import InterceptorConfig

KEY = "sk-a-secret-key-of-nobody"
REUSE = {"reuse_cached_responses": True}


@dataclass
class Model:
    """Answers each request with another text, or as it is told."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read() or b"null")
        self.asked.append(body)
        text = f"answer {len(self.asked)}"
        if isinstance(body, dict) and body.get("stream"):
            return await self._stream(request, text)
        message = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
        data = self.body if self.body is not None else json.dumps(message).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        return web.Response(status=self.status, body=data, headers=headers)

    async def _stream(self, request: web.Request, text: str) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Set-Cookie": "a=b"})
        await reply.prepare(request)
        for piece in (*text, None):
            choice = {"index": 0, "delta": {"content": piece or ""}, "finish_reason": None if piece else "stop"}
            if piece is None and self.cut:
                assert request.transport is not None
                request.transport.abort()
                return reply
            await reply.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
            await asyncio.sleep(0.001)
        await reply.write(b"data: [DONE]\n\n")
        await reply.write_eof()
        return reply


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def origin(serve: Serve, model: Model) -> str:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await model(request)

    return serve(handle)


class Runs:
    """Starts of one run, one after the other."""

    def __init__(self, origin: str, folder: Path, stack: ExitStack) -> None:
        self.origin = origin
        self.folder = folder
        self._outer = stack
        self._stack = ExitStack()
        stack.callback(self.end)

    def end(self) -> None:
        self._stack.close()

    def start(
        self,
        config: dict[str, Any] | None = None,
        *,
        before: tuple[tuple[str, dict[str, Any]], ...] = (),
        replay: bool = False,
        folder: Path | None = None,
        others: tuple[Route, ...] = (),
    ) -> RunningProxy:
        self.end()
        chain = [InterceptorConfig(name=name, config=parameters) for name, parameters in before]
        chain.append(InterceptorConfig(name="caching", config=REUSE if config is None else config))
        upstream = Upstream(f"{self.origin}/v1/chat/completions")
        options = ProxyOptions(output_dir=folder or self.folder, replay_only=replay)
        return self._stack.enter_context(running_proxy(upstream, chain, others=others, options=options))

    def records(self) -> list[Record]:
        with StoreReader(self.folder / "cache" / "requests.db") as reader:
            return list(reader.records())


@pytest.fixture
def runs(origin: str, tmp_path: Path) -> Iterator[Runs]:
    with ExitStack() as stack:
        yield Runs(origin, tmp_path / "run", stack)


def ask(client: Client, proxy: RunningProxy, prompt: str = "hi", **more: Any) -> str:
    reply = client.post(proxy.url, {"messages": [{"role": "user", "content": prompt}], **more})
    assert reply.status == 200, reply.body
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text
