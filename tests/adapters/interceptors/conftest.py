"""An endpoint that tells what it was sent, behind a chain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from aiohttp import web
from tests.adapters.conftest import Serve
from tests.adapters.interceptors.cached import model as model  # noqa: PLC0414  a fixture, shared
from tests.adapters.interceptors.cached import origin as origin  # noqa: PLC0414  likewise
from tests.adapters.interceptors.cached import runs as runs  # noqa: PLC0414  likewise

from nemo_evaluator.adapters.proxy import RunningProxy, Upstream, running_proxy
from nemo_evaluator.api.adapter_config import InterceptorConfig


class Behind(Protocol):
    def __call__(self, *links: tuple[str, dict[str, Any]], path: str = ...) -> RunningProxy: ...


class Recorder:
    """Keeps the requests it gets and answers each with `answer`."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.body: bytes = b"{}"
        self.content_type = "application/json"

    async def __call__(self, request: web.Request) -> web.Response:
        text = await request.read()
        self.bodies.append(json.loads(text) if text else None)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=self.status, body=self.body, headers={"Content-Type": self.content_type})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def behind(serve: Serve, recorder: Recorder) -> Iterator[Behind]:
    """Put interceptors, given as names with parameters, before the recorder."""

    async def handle(request: web.Request) -> web.Response:
        return await recorder(request)

    origin = serve(handle)
    with ExitStack() as stack:

        def start(*links: tuple[str, dict[str, Any]], path: str = "/v1/chat/completions") -> RunningProxy:
            chain = [InterceptorConfig(name=name, config=config) for name, config in links]
            return stack.enter_context(running_proxy(Upstream(f"{origin}{path}"), chain))

        yield start
