from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.conftest import Client
from tests.adapters.interceptors.conftest import Behind, Recorder
from tests.adapters.interceptors.crowd import Link, chat
from tests.adapters.interceptors.crowd import behind as chain_before

from nemo_evaluator.adapters.proxy import ProxyOptions, RunningProxy
from nemo_evaluator.adapters.stats import ProxyStats
from nemo_evaluator.core.coverage import coverage
from nemo_evaluator.testing import FakeEndpoint

LINK: Link = ("finish_reason", {})


def _answer(content: str | None = "x", *, reason: str = "stop", **message: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
    return json.dumps({"choices": [choice]}).encode()


def _event(content: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def _counts(proxy: RunningProxy) -> tuple[int, int, int]:
    stats = proxy.stats()
    return stats.truncated_samples, stats.refused_samples, stats.empty_samples


def _ask(client: Client, proxy: RunningProxy, question: str, *, sample: str | None = None) -> None:
    client.post(proxy.url, chat(question), headers={"X-Sample-Id": sample} if sample else {})


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        (_answer(), (0, 0, 0)),
        (_answer("and", reason="length"), (1, 0, 0)),
        (_answer("", reason="length"), (1, 0, 1)),
        (_answer(None, reason="content_filter"), (0, 1, 1)),
        (_answer(None, refusal="I will not"), (0, 1, 0)),
        (_answer(None), (0, 0, 1)),
        # Not usable: failed, and nothing else.
        (b'{"choices": []}', (0, 0, 0)),
    ],
)
def test_a_sample_counts_by_its_answer(
    behind: Behind, client: Client, recorder: Recorder, body: bytes, counts: tuple[int, int, int]
) -> None:
    proxy = behind(LINK)
    recorder.body = body
    _ask(client, proxy, "?", sample="a")
    assert _counts(proxy) == counts


def test_the_end_of_a_stream_counts(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(LINK)
    recorder.content_type = "text/event-stream"
    recorder.body = _event("") + _event("  ", "length") + b"data: [DONE]\n\n"
    _ask(client, proxy, "?")
    assert _counts(proxy) == (1, 0, 1)


def test_a_named_sample_counts_once_and_by_its_last_answer(behind: Behind, client: Client, recorder: Recorder) -> None:
    proxy = behind(LINK)
    recorder.body = _answer("and", reason="length")
    for sample in ("a", "a", "b"):
        _ask(client, proxy, "same question", sample=sample)
    assert _counts(proxy) == (2, 0, 0)
    recorder.body = _answer("")
    _ask(client, proxy, "same question", sample="a")
    assert _counts(proxy) == (1, 0, 1)
    recorder.body = _answer("well")
    _ask(client, proxy, "same question", sample="a")
    assert _counts(proxy) == (1, 0, 0)
    assert proxy.stats().samples_known is True
    # The failures of a harness's second attempt change nothing.
    recorder.status, recorder.body = 500, b"{}"
    _ask(client, proxy, "same question", sample="b")
    assert _counts(proxy) == (1, 0, 0)
    assert proxy.stats().finish_reasons == {"length": 3, "stop": 2}


def test_samples_without_a_name_go_by_content_and_stay(behind: Behind, client: Client, recorder: Recorder) -> None:
    """The same question may have been asked several times on purpose: a good answer does not undo a cut one."""
    proxy = behind(LINK)
    recorder.body = _answer("and", reason="length")
    for question in ("one", "one", "two"):
        _ask(client, proxy, question)
    recorder.body = _answer()
    _ask(client, proxy, "one")
    assert _counts(proxy) == (2, 0, 0)
    assert proxy.stats().samples_known is False
    assert coverage(None, proxy.stats())["requests"]["samples"] == {
        "known_by": "content", "truncated": 2, "refused": 0, "empty": 0,
    }  # fmt: skip


def test_a_resumed_run_counts_alike(client: Client, tmp_path: Path) -> None:
    chain: list[Link] = [("caching", {"reuse_cached_responses": True}), LINK]

    def run(endpoint: FakeEndpoint, *questions: str) -> ProxyStats:
        options = ProxyOptions(output_dir=tmp_path)
        with chain_before(endpoint.chat_url, *chain, options=options) as proxy:
            for question in questions:
                client.post(proxy.url, chat(question, max_tokens=2), headers={"X-Sample-Id": question})
            return proxy.stats()

    with FakeEndpoint("word " * 10) as endpoint:
        first, second = run(endpoint, "a", "b"), run(endpoint, "a", "b", "c")
    assert (first.truncated_samples, first.cached, first.truncated) == (2, 0, 2)
    assert (second.truncated_samples, second.cached, second.truncated) == (3, 2, 1)
