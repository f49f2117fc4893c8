from __future__ import annotations

from http.client import IncompleteRead

import pytest
from tests.adapters.conftest import Client
from tests.adapters.interceptors.cached import Model, Runs, ask

from nemo_evaluator.adapters.proxy import RunningProxy
from nemo_evaluator.errors import MisconfigurationError


def test_replay_never_asks_and_a_miss_ends_the_run(runs: Runs, client: Client, model: Model) -> None:
    proxy = runs.start()
    stored = [ask(client, proxy, str(number)) for number in range(3)]
    for _ in range(2):
        proxy = runs.start(replay=True)
        assert [ask(client, proxy, str(number)) for number in range(3)] == stored
        assert proxy.ends.reason is None
    assert client.ask("GET", proxy.url).status == 404
    missed = client.post(proxy.url, {"messages": []}, headers={"X-Sample-Id": "7"})
    assert (missed.status, missed.json()["error"]["type"]) == (404, "replay_error")
    assert proxy.ends.kind == "store"
    assert "sample 7" in (proxy.ends.reason or "")
    assert client.post(proxy.url, {"messages": []}).json()["error"]["type"] == "run_ended"
    assert len(model.asked) == 3
    assert len(runs.records()) == 3


def test_a_run_with_failures_is_replayed_as_it_was(runs: Runs, client: Client, model: Model) -> None:
    def run(proxy: RunningProxy) -> list[tuple[int, bytes]]:
        replies = []
        for prompt in ("a", "too long", "<html>", "a", "again", "again"):
            if not proxy.ends.reason and prompt in ("too long", "<html>"):
                model.status, model.body = (400, b'{"error": {"message": "x"}}') if " " in prompt else (200, b"<html>")
            reply = client.post(proxy.url, {"messages": [{"role": "user", "content": prompt}]})
            replies.append((reply.status, reply.body))
            # The first of the two equal requests fails, the second is answered.
            model.status, model.body = (500, b"oh") if len(replies) == 4 else (200, None)
        return replies

    first = run(runs.start())
    assert [status for status, _ in first] == [200, 400, 200, 200, 500, 200]
    for _ in range(2):
        proxy = runs.start(replay=True)
        again = run(proxy)
        assert proxy.ends.reason is None
        # Usable answers of equal requests come first.
        assert again == [*first[:4], first[5], first[4]]
    assert len(model.asked) == 6
    proxy = runs.start()
    client.post(proxy.url, {"messages": [{"role": "user", "content": "too long"}]})
    assert (proxy.stats().cached, len(model.asked)) == (0, 7)


def test_an_endpoint_that_could_not_be_reached_is_replayed_as_such(runs: Runs, client: Client) -> None:
    runs.origin = "http://127.0.0.1:9"
    replies = [client.post(runs.start(replay=replay).url, {"a": 1}) for replay in (False, True)]
    assert replies[0].status == 502
    assert (replies[0].status, replies[0].body) == (replies[1].status, replies[1].body)


def test_a_stream_that_broke_off_is_replayed_as_such(runs: Runs, client: Client, model: Model) -> None:
    model.cut = True
    partial = []
    for replay in (False, True):
        proxy = runs.start(replay=replay)
        with pytest.raises(IncompleteRead) as caught:
            client.post(proxy.url, {"stream": True})
        partial.append(caught.value.partial)
        assert proxy.ends.reason is None
    assert partial[0] == partial[1]
    assert b"data: " in partial[0]
    assert len(model.asked) == 1


def test_replay_without_a_store_does_not_start(runs: Runs) -> None:
    with pytest.raises(MisconfigurationError, match="there is no store"):
        runs.start(replay=True)
