"""A harness with many requests at a time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec
from urllib.parse import urlsplit

from tests.adapters.conftest import Client, Reply

from nemo_evaluator.adapters.proxy import ProxyOptions, RunningProxy, Upstream, running_proxy
from nemo_evaluator.api.adapter_config import InterceptorConfig

Link = tuple[str, dict[str, Any]]
P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20))

    return run


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "fake-model", "messages": [{"role": "user", "content": prompt}], **more}


def ask_all(url: str, prompts: Sequence[str], *, parallel: int = 8, **more: Any) -> list[Reply]:
    """The replies to `prompts`, in their order."""
    with ThreadPoolExecutor(parallel) as pool:
        return list(pool.map(lambda prompt: Client().post(url, chat(prompt, **more)), prompts))


def links(*chain: Link) -> list[InterceptorConfig]:
    return [InterceptorConfig(name=name, config=config) for name, config in chain]


@contextlib.contextmanager
def behind(upstream: str | Upstream, *chain: Link, options: ProxyOptions | None = None) -> Iterator[RunningProxy]:
    model = Upstream(upstream) if isinstance(upstream, str) else upstream
    with running_proxy(model, links(*chain), options=options) as proxy:
        yield proxy


def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait for `condition`, which has to come true in far less than that."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@contextlib.contextmanager
def left_open(url: str, body: bytes) -> Iterator[http.client.HTTPConnection]:
    """A request whose answer nobody reads; the connection is closed at the end of the block."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", parts.path, body=body, headers={"Content-Type": "application/json"})
        yield connection
