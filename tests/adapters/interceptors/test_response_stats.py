from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from tests.adapters.conftest import Client
from tests.adapters.interceptors.crowd import Link, behind, chat

from nemo_evaluator.adapters.proxy import ProxyOptions
from nemo_evaluator.testing import FakeEndpoint


@pytest.mark.parametrize(
    ("parameter", "keys"),
    [
        ("collect_token_stats", {"avg_prompt_tokens", "max_completion_tokens", "sum_total_tokens"}),
        ("collect_finish_reasons", {"finish_reason"}),
        ("collect_tool_calls", {"tool_calls_count", "function_calls_count"}),
    ],
)
def test_what_is_not_wanted_is_left_out(client: Client, parameter: str, keys: set[str]) -> None:
    with FakeEndpoint("yes") as endpoint:
        with behind(endpoint.chat_url, ("response_stats", {parameter: False})) as proxy:
            client.post(proxy.url, chat("?"))
            without = proxy.stats().as_response_stats()
        with behind(endpoint.chat_url, ("response_stats", {})) as proxy:
            client.post(proxy.url, chat("?"))
            everything = proxy.stats().as_response_stats()
    assert not keys & without.keys()
    assert keys <= everything.keys()
    assert without["count"] == 1


def test_a_line_tells_of_every_so_many_answers(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="nemo_evaluator"),
        FakeEndpoint("yes") as endpoint,
        behind(endpoint.chat_url, ("response_stats", {"logging_aggregated_stats_interval": 2})) as proxy,
    ):
        for number in range(5):
            client.post(proxy.url, chat(str(number)))
    lines = [record.getMessage() for record in caplog.records if "answers," in record.getMessage()]
    assert [line.split(";")[0] for line in lines] == ["2 answers, 2 with status 200", "4 answers, 4 with status 200"]
    assert "finish reasons stop 4" in lines[1]


def test_a_file_has_the_last_state(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "response_stats_cache"
    link = ("response_stats", {"cache_dir": str(folder), "stats_file_saving_interval": 2})
    with FakeEndpoint("yes") as endpoint, behind(endpoint.chat_url, link) as proxy:
        for number in range(5):
            client.post(proxy.url, chat(str(number)))
    assert json.loads((folder / "response_stats.json").read_text())["count"] == 5
    assert [path.name for path in folder.iterdir()] == ["response_stats.json"]


def test_nothing_is_written_where_nobody_said(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ProxyOptions(output_dir=tmp_path)
    with (
        FakeEndpoint("yes") as endpoint,
        behind(endpoint.chat_url, ("response_stats", {"stats_file_saving_interval": 1}), options=options) as proxy,
    ):
        client.post(proxy.url, chat("?"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_does_not_disturb(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    link = ("response_stats", {"cache_dir": str(tmp_path / "file"), "stats_file_saving_interval": 1})
    with FakeEndpoint("yes") as endpoint, behind(endpoint.chat_url, link) as proxy:
        statuses = [client.post(proxy.url, chat(str(number))).status for number in range(3)]
    assert statuses == [200, 200, 200]
    assert caplog.text.count("statistics cannot be written") == 1


def test_the_proxy_counts_what_the_endpoint_counts(client: Client, tmp_path: Path) -> None:
    """Each exchange is counted once: those repeated, those refused, and none for what comes from the store."""
    chain: list[Link] = [
        ("caching", {"reuse_cached_responses": True}),
        ("response_stats", {}),
        ("retry", {"base_seconds": 0.001, "max_attempts": 2}),
    ]
    faults = ["503,every=3", "reset_mid_body,every=7", "400,at=1"]
    with FakeEndpoint("yes", faults=faults) as endpoint:
        for start in range(2):
            before = len(endpoint.requests)
            with behind(endpoint.chat_url, *chain, options=ProxyOptions(output_dir=tmp_path)) as proxy:
                statuses = [client.post(proxy.url, chat(str(number))).status for number in range(20)]
                stats = proxy.stats()
            asked = len(endpoint.requests) - before
            assert stats.requests == 20
            assert stats.sent == asked
            assert stats.sent == stats.responses + stats.connection_failures
            assert stats.sent - stats.retried + stats.cached == 20
            assert stats.answered == statuses.count(200)
            assert stats.requests - stats.answered == sum(status != 200 for status in statuses)
            assert sum(stats.errors.values()) == stats.connection_failures + sum(
                count for status, count in stats.upstream_by_status.items() if status != 200
            )
            assert (stats.cached > 0) is (start == 1)
