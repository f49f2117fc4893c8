"""Exchanges for the store, and a way to use it without a proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from multidict import CIMultiDict

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.messages import MODEL, Request
from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.identity import identify
from nemo_evaluator.adapters.store.record import STORE_FILE
from nemo_evaluator.adapters.store.shelf import Seeds, Wanted
from nemo_evaluator.adapters.store.store import Store

URL = "http://127.0.0.1:8000/v1/chat/completions"

Given = TypeVar("Given")


def request_of(prompt: str, *, upstream: str = MODEL, **parameters: Any) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], **parameters}
    return Request(
        "POST", URL, CIMultiDict({"Content-Type": "application/json"}), json.dumps(body).encode(), upstream=upstream
    )


def entry_of(prompt: str, answer: str, *, is_usable: bool = True, upstream: str = MODEL, **parameters: Any) -> NewEntry:
    request = request_of(prompt, upstream=upstream, **parameters)
    identity = identify(request)
    response = json.dumps({"choices": [{"message": {"content": answer}}]}).encode()
    return NewEntry(
        upstream=upstream,
        address=identity.address,
        time=1_700_000_000.5,
        status=200 if is_usable else 500,
        is_usable=is_usable,
        problem=None if is_usable else "status 500",
        sample=f"sample {prompt}",
        identity=identity,
        request_id="r",
        seconds=1.5,
        first_byte_seconds=0.5,
        facts=AnswerFacts(prompt_tokens=3, completion_tokens=4, finish_reasons=["stop"]),
        request=request.body,
        response=response,
        headers=[("Content-Type", "application/json")],
        request_bytes=len(request.body),
        response_bytes=len(response),
    )


def answer_in(response: bytes) -> str:
    text: str = json.loads(response)["choices"][0]["message"]["content"]
    return text


class Session:
    """One start of a run that uses a store."""

    def __init__(self, store: Store, runner: asyncio.Runner, seeds: Seeds) -> None:
        self.store = store
        self._runner = runner
        self.shelf = store.shelf(Wanted(seeds=seeds))

    def run(self, work: Callable[[], Awaitable[Given]]) -> Given:
        async def both() -> Given:
            return await work()

        return self._runner.run(both())

    def put(self, *entries: NewEntry) -> list[bool]:
        """Add entries in one turn of the event loop."""

        async def add() -> list[bool]:
            return [await future for future in [self.store.add(entry) for entry in entries]]

        return self._runner.run(add())

    def find(self, prompt: str, **parameters: Any) -> str | None:
        """The answer of an earlier start; None when there is none."""
        if self.shelf is None:
            return None
        found = self.shelf.find(identify(request_of(prompt, **parameters)))
        return None if found is None else answer_in(found.content.response)


@contextmanager
def start_of_run(path: Path, seeds: Seeds = "auto") -> Iterator[Session]:
    with asyncio.Runner() as runner, closing(Store(path)) as store:
        yield Session(store, runner, seeds)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / STORE_FILE
