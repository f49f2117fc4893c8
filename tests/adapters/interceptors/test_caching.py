from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.conftest import Client
from tests.adapters.interceptors.cached import KEY, REUSE, Model, Runs, ask

from nemo_evaluator.adapters.interceptors.caching import CachingParameters
from nemo_evaluator.adapters.proxy import Route, Upstream, running_proxy
from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError


def test_equal_requests_of_a_start_are_asked_each_and_replayed_once_each(
    runs: Runs, client: Client, model: Model
) -> None:
    proxy = runs.start()
    first = [ask(client, proxy) for _ in range(4)]
    assert first == [f"answer {number}" for number in (1, 2, 3, 4)]
    proxy = runs.start()
    assert [ask(client, proxy) for _ in range(5)] == [*first, "answer 5"]
    assert proxy.stats().cached == 4
    assert (proxy.stats().sent, len(model.asked)) == (1, 5)
    assert [record.start for record in runs.records()] == [1, 1, 1, 1, 2]


def test_a_replayed_answer_is_what_the_endpoint_sent(runs: Runs, client: Client, model: Model) -> None:
    model.body = gzip.compress(b'{"choices": [{"message": {"content": "packed"}}]}')
    model.headers = {"Content-Encoding": "gzip", "Set-Cookie": "a=b", "X-Kept": "yes", "Retry-After": "3"}
    replies = [client.post(runs.start().url, b'{"a": 1}', headers={"Accept-Encoding": "gzip"}) for _ in range(2)]
    assert replies[0].body == replies[1].body == model.body
    assert replies[1].headers["Content-Encoding"] == "gzip"
    assert replies[1].headers["X-Kept"] == "yes"
    assert "Set-Cookie" not in replies[1].headers
    assert "Retry-After" not in replies[1].headers
    assert len(model.asked) == 1


def test_a_stream_is_kept_whole_and_replayed(runs: Runs, client: Client, model: Model) -> None:
    replies = [client.post(runs.start().url, {"stream": True, "a": 1}) for _ in range(2)]
    assert replies[0].body == replies[1].body
    assert replies[1].body.endswith(b"data: [DONE]\n\n")
    assert replies[1].headers["Content-Type"] == "text/event-stream"
    assert len(model.asked) == 1
    assert runs.records()[0].finish_reason == "stop"


def test_a_stream_that_breaks_off_is_kept_for_looking_at_only(runs: Runs, client: Client, model: Model) -> None:
    model.cut = True
    with pytest.raises(Exception, match=r"IncompleteRead|reset"):
        client.post(runs.start().url, {"stream": True})
    model.cut = False
    assert client.post(runs.start().url, {"stream": True}).body.endswith(b"[DONE]\n\n")
    runs.end()
    broken, good = runs.records()
    assert (broken.is_usable, good.is_usable) == (False, True)
    assert broken.problem


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b'{"error": {"message": "boom"}}'), (200, b"<html>"), (200, b'{"error": "x"}'), (429, b"")],
)
def test_what_is_no_answer_is_recorded_and_asked_again(
    runs: Runs, client: Client, model: Model, status: int, body: bytes
) -> None:
    model.status, model.body = status, body
    client.post(runs.start().url, b'{"a": 1}')
    model.status, model.body = 200, None
    proxy = runs.start()
    assert client.post(proxy.url, b'{"a": 1}').status == 200
    assert proxy.stats().cached == 0
    failed, good = runs.records()
    assert (failed.status, failed.is_usable, good.is_usable) == (status, False, True)
    assert failed.problem
    assert "boom" in failed.problem or status != 500


def test_no_answer_at_all_is_recorded(runs: Runs, client: Client) -> None:
    runs.origin = "http://127.0.0.1:9"
    assert client.post(runs.start().url, b"{}").status == 502
    runs.end()
    (record,) = runs.records()
    assert (record.status, record.is_usable) == (0, False)
    assert "127.0.0.1:9" in (record.problem or "")


def test_keys_are_in_no_file(
    runs: Runs, client: Client, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_API_KEY", "a-key-in-the-environment")
    proxy = runs.start()
    headers = {"Authorization": f"Bearer {KEY}", "X-Api-Key": KEY, "Cookie": KEY}
    model.headers = {"X-Asked-With": f"Bearer {KEY}", "X-Gateway": "a-key-in-the-environment", "X-Model": "m1"}
    url = f"{proxy.url}?api_key={KEY}"
    client.post(url, {"a": 1}, headers=headers)
    client.post(url, {"a": KEY}, headers=headers)
    model.body = json.dumps({"error": {"message": f"bad key {KEY} or a-key-in-the-environment"}}).encode()
    for model.status in (401, 200):
        client.post(url, {"b": 1}, headers=headers)
    runs.end()
    with StoreReader(runs.folder / "cache" / "requests.db") as reader:
        assert reader.count() == 4
        said = str([(record, reader.texts(record.id)) for record in reader.records()]) + caplog.text
    assert "X-Model" in said
    for secret in (KEY, "a-key-in-the-environment"):
        assert secret not in said
        assert all(secret.encode() not in file.read_bytes() for file in runs.folder.rglob("*") if file.is_file())
    assert client.post(runs.start().url, {"a": 1}, headers={"Authorization": "Bearer another"}).status == 200
    assert len(model.asked) == 4


@pytest.mark.parametrize("word", ["anything", "not-needed", "placeholder"])
def test_a_word_in_place_of_a_key_does_not_keep_an_answer_from_being_given_again(
    runs: Runs, client: Client, model: Model, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    if word.isalpha():
        monkeypatch.setenv("SOME_API_KEY", word)
    model.body = json.dumps({"choices": [{"message": {"content": f"A key is {word} here."}}]}).encode()
    headers = {"Authorization": f"Bearer {word}"}
    replies = [client.post(runs.start(replay=replay).url, {"a": 1}, headers=headers) for replay in (False, True)]
    assert replies[0].body == replies[1].body == model.body


@pytest.mark.parametrize("key", ["nvapi-0123456789abcdef", "a-key-in-the-environment"])
def test_an_answer_that_repeats_a_key_is_not_given_again(
    runs: Runs, client: Client, model: Model, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "a-key-in-the-environment")
    model.body = json.dumps({"choices": [{"message": {"content": f"You asked with {key}."}}]}).encode()
    for _ in range(2):
        assert client.post(runs.start().url, {"a": 1}, headers={"Authorization": f"Bearer {key}"}).body == model.body
    runs.end()
    assert len(model.asked) == 2
    with StoreReader(runs.folder / "cache" / "requests.db") as reader:
        assert key.encode() not in reader.texts(1).response


def test_another_path_is_another_request(runs: Runs, client: Client, model: Model) -> None:
    ask(client, runs.start())
    client.post(f"{runs.start().url}/../embeddings".replace("/chat/completions/..", ""), {"input": "x"})
    assert len(model.asked) == 2


def elsewhere(runs: Runs) -> None:
    """The endpoint comes back at another address."""
    runs.origin = runs.origin.replace("127.0.0.1", "localhost")


def test_a_run_goes_on_when_its_endpoint_comes_back_at_another_address(
    runs: Runs, client: Client, model: Model
) -> None:
    assert ask(client, runs.start()) == "answer 1"
    elsewhere(runs)
    for replay in (False, True):
        assert ask(client, runs.start(replay=replay)) == "answer 1"
    assert len(model.asked) == 1


@pytest.mark.parametrize("place", ["cache_dir", "seed_cache_dir"])
def test_a_store_that_runs_share_gives_answers_of_the_same_address_only(
    runs: Runs, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    ask(client, runs.start({**REUSE, "cache_dir": str(tmp_path / "shared")}))
    config = {**REUSE, place: str(tmp_path / "shared")}
    assert ask(client, runs.start(config)) == "answer 1"
    assert "none of the stored answers" not in caplog.text
    elsewhere(runs)
    runs.folder = tmp_path / "another run"
    assert ask(client, runs.start(config)) == "answer 2"
    assert "none of the stored answers of the endpoint 'model' is given again: they came from" in caplog.text


def test_what_an_outer_interceptor_changes_is_what_is_kept(runs: Runs, client: Client, model: Model) -> None:
    prompt = {"system_message": "Be brief."}
    assert ask(client, runs.start(before=(("system_message", prompt),))) == "answer 1"
    assert ask(client, runs.start()) == "answer 2"
    assert ask(client, runs.start(before=(("system_message", prompt),))) == "answer 1"
    assert len(model.asked) == 2


def test_stores_of_other_runs_are_used_once_and_copied(runs: Runs, client: Client, tmp_path: Path) -> None:
    proxy = runs.start(folder=tmp_path / "other")
    theirs = [ask(client, proxy) for _ in range(2)]
    runs.end()
    before = (tmp_path / "other" / "cache" / "requests.db").read_bytes()
    config = {**REUSE, "seed_cache_dir": str(tmp_path / "other")}
    proxy = runs.start(config)
    assert [ask(client, proxy), ask(client, proxy)] == theirs
    assert ask(client, proxy) == "answer 3"
    runs.end()
    assert (tmp_path / "other" / "cache" / "requests.db").read_bytes() == before
    assert [record.source for record in runs.records()] == ["store", "store", "endpoint"]
    for again in (config, REUSE):
        proxy = runs.start(again)
        assert [ask(client, proxy) for _ in range(3)] == [*theirs, "answer 3"]
    proxy = runs.start(config)
    assert [ask(client, proxy) for _ in range(4)] == [*theirs, "answer 3", "answer 4"]


def test_a_seed_store_that_is_not_there_is_said_at_once(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationError, match="there is no store"):
        runs.start({"seed_cache_dir": [str(tmp_path / "nowhere")]})


def test_a_judge_of_the_same_run_shares_the_store(runs: Runs, client: Client) -> None:
    judge = Route(
        upstream=Upstream(f"{runs.origin}/judge/chat/completions"),
        name="judge",
        chain=(InterceptorConfig(name="caching", config=REUSE),),
    )
    for _ in range(2):
        proxy = runs.start(others=(judge,))
        replies = [client.post(proxy.url_of(name), b'{"a": 1}').json() for name in ("model", "judge")]
        assert [reply["choices"][0]["message"]["content"] for reply in replies] == ["answer 1", "answer 2"]
    assert [record.upstream for record in runs.records()] == ["model", "judge"]


@pytest.mark.parametrize(
    ("config", "requests", "answers"),
    [
        ({}, 0, 3),
        ({"save_requests": True, "save_responses": False}, 3, 0),
        ({"save_requests": True, "max_saved_requests": 1, "max_saved_responses": 2}, 1, 2),
        ({**REUSE, "max_saved_requests": 1, "max_saved_responses": 1}, 3, 3),
    ],
)
def test_without_reuse_texts_are_kept_as_far_as_asked_for(
    runs: Runs, client: Client, config: dict[str, Any], requests: int, answers: int
) -> None:
    for number in (1, 2):
        proxy = runs.start(config)
        if number == 1 or "reuse_cached_responses" not in config:
            assert len({ask(client, proxy) for _ in range(3)}) == 3
        assert proxy.stats().cached == 0
    with StoreReader(runs.folder / "cache" / "requests.db") as reader:
        texts = [reader.texts(id_) for id_ in (1, 2, 3)]
    assert sum(bool(text.request) for text in texts) == requests
    assert sum(bool(text.response) for text in texts) == answers


def test_cache_dir_is_where_the_file_lies(runs: Runs, client: Client, tmp_path: Path) -> None:
    ask(client, runs.start({**REUSE, "cache_dir": str(tmp_path / "elsewhere")}))
    assert (tmp_path / "elsewhere" / "requests.db").is_file()
    assert not (runs.folder / "cache").exists()


def test_nothing_is_written_where_the_compatible_default_points(origin: str) -> None:
    chain = [InterceptorConfig(name="caching", config={})]
    with pytest.raises(MisconfigurationError, match="no output folder"), running_proxy(Upstream(f"{origin}/v1"), chain):
        pass
    assert CachingParameters().cache_dir == "/tmp"
    assert not Path("/tmp/requests.db").exists()


def test_a_store_that_cannot_be_written_does_not_stop_the_run(
    runs: Runs, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    proxy = runs.start({**REUSE, "cache_dir": str(tmp_path / "file")})
    assert [ask(client, proxy) for _ in range(3)] == ["answer 1", "answer 2", "answer 3"]
    assert proxy.stats().not_stored == 3
    assert caplog.text.count("answers cannot be stored") == 1


def test_requests_that_ask_nothing_pass(runs: Runs, client: Client, model: Model) -> None:
    proxy = runs.start()
    assert client.ask("GET", f"{proxy.url.removesuffix('/chat/completions')}/models").status == 200
    assert len(model.asked) == 1
    runs.end()
    assert runs.records() == []
