"""Runs that are copied, doubled, stopped and cut off: what is on disk goes on to one and the same score."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.compat.conftest import bare_environment
from tests.reliability.conftest import PARALLELISM, PREFLIGHT_REQUESTS, ROUNDS, Case, kill_all, tree, wait_for

from nemo_evaluator.testing import Answer, FakeEndpoint, ModelRequest

COPIES = 20 if ROUNDS else 2
LATENCY = 0.1


def test_copies_of_a_run_s_folder_end_alike(ours: Case, tmp_path: Path) -> None:
    """Whatever moment `cp -a` catches, with a store that is being written to."""
    chance = random.Random(2)
    output_dir, questions = tmp_path / "out", ours.questions
    copies = [tmp_path / f"copy{number}" for number in range(COPIES)]
    moments = sorted(chance.uniform(0, questions.count - PREFLIGHT_REQUESTS) for _ in copies)
    with FakeEndpoint(questions.answer, model_id="m", latency=LATENCY) as endpoint:
        process = ours.start(endpoint.chat_url, output_dir)
        for copy, moment in zip(copies, moments, strict=True):
            wait_for(lambda moment=moment: endpoint.count >= PREFLIGHT_REQUESTS + moment)  # type: ignore[misc]  # the loop's value
            subprocess.run(["cp", "-a", str(output_dir), str(copy)], check=True)
        assert process.wait(60) == 0, ours.log(output_dir)
        for copy, moment in zip(copies, moments, strict=True):
            before = endpoint.count
            assert ours.finish(endpoint.chat_url, copy) == 0, ours.log(copy)
            most = questions.count - moment + PARALLELISM + 2 * PREFLIGHT_REQUESTS
            assert endpoint.count - before <= most + 1, ours.log(copy)

    assert {ours.score(folder) for folder in copies} == {ours.score(output_dir)}
    assert ours.score(output_dir) == pytest.approx(questions.score)
    assert {ours.coverage(folder)["scored"] for folder in copies} == {questions.count}


def test_a_second_run_in_the_folder_is_refused_until_the_first_is_gone(ours: Case, tmp_path: Path) -> None:
    output_dir, questions = tmp_path / "out", ours.questions
    with FakeEndpoint(questions.answer, model_id="m", latency=LATENCY) as endpoint:
        first = ours.start(endpoint.chat_url, output_dir)
        wait_for(lambda: endpoint.count >= PREFLIGHT_REQUESTS + 20)
        asked = endpoint.count
        started = time.monotonic()
        second = subprocess.run(
            ours.words(endpoint.chat_url, output_dir),
            env={**bare_environment(), **ours.variables}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - started
        kill_all(tree(first.pid)[:1])
        first.wait(30)

        assert (second.returncode, "Traceback" in second.stderr) == (2, False)
        assert f"process {first.pid} on host" in second.stderr
        assert seconds < 5
        assert ours.finish(endpoint.chat_url, output_dir) == 0, ours.log(output_dir)
        assert endpoint.count <= questions.count + PARALLELISM + 2 * PREFLIGHT_REQUESTS
        assert asked < questions.count
    assert ours.score(output_dir) == pytest.approx(questions.score)


def test_a_run_that_is_stopped_and_continued_goes_on(ours: Case, tmp_path: Path) -> None:
    output_dir, questions = tmp_path / "out", ours.questions
    with FakeEndpoint(questions.answer, model_id="m", latency=LATENCY) as endpoint:
        process = ours.start(endpoint.chat_url, output_dir)
        wait_for(lambda: endpoint.count >= PREFLIGHT_REQUESTS + 20)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for one in tree(process.pid):
                one.send_signal(number)
            time.sleep(30 if ROUNDS and number == signal.SIGSTOP else 1)
        assert process.wait(60) == 0, ours.log(output_dir)
        assert endpoint.count <= questions.count + PREFLIGHT_REQUESTS
    assert ours.score(output_dir) == pytest.approx(questions.score)


def test_a_reader_of_the_output_that_leaves_does_not_end_the_run(ours: Case, tmp_path: Path) -> None:
    output_dir, questions = tmp_path / "out", ours.questions
    with FakeEndpoint(questions.answer, model_id="m") as endpoint:
        words = ours.words(endpoint.chat_url, output_dir)
        # As in `nemo-evaluator run_eval … | head -1`; what `head` returns is not of interest.
        piped = ["bash", "-c", '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}', "bash", *words]
        done = subprocess.run(piped, env={**bare_environment(), **ours.variables}, capture_output=True, check=False)
    assert done.returncode == 0
    assert ours.score(output_dir) == pytest.approx(questions.score)


def test_what_was_sent_is_counted_over_an_interruption(case: Case, tmp_path: Path) -> None:
    number = signal.SIGHUP if case.name == "mmlu_pro" else signal.SIGINT
    soon = "target.api_endpoint.adapter_config.retry.base_seconds=0.02"
    case, output_dir, questions = case.having(soon), tmp_path / "out", case.questions
    faults = ["500,prompt_fraction=0.2,first_per_prompt=1"]
    with FakeEndpoint(questions.answer, model_id="m", latency=LATENCY, faults=faults) as endpoint:
        # What is started by `nohup` or in the background of a script ignores some signals, and so do its children.
        default = f"--default-signal={number.name.removeprefix('SIG')}"
        process = replace(case, command=["env", default, *case.command]).start(endpoint.chat_url, output_dir)
        wait_for(lambda: endpoint.count >= PREFLIGHT_REQUESTS + questions.count // 2)
        process.send_signal(number)
        assert process.wait(20) == 128 + number, case.log(output_dir)
        assert not (output_dir / "results.yml").exists()
        first = sum(b"Which is letter" in request.raw for request in endpoint.requests)
        answered = sum(request.status == 200 and b"Which is letter" in request.raw for request in endpoint.requests)

        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)

        asked = [request for request in endpoint.requests if b"Which is letter" in request.raw][first:]
    counted = case.coverage(output_dir)["requests"]
    assert counted["exchanges"] == len(asked)
    assert counted["exchanges"] == counted["sent"] - counted["cached"] + counted["retried"]
    assert counted["answered"] - counted["cached"] == sum(request.status == 200 for request in asked)
    # An answer that was under way when the run was stopped is lost; every other one is kept.
    assert questions.count <= answered + counted["answered"] - counted["cached"] <= questions.count + PARALLELISM


def test_many_large_answers_are_kept_and_given_again(probe: Case, tmp_path: Path) -> None:
    count, size = (13_000, 100_000) if ROUNDS else (300, 100_000)
    case = probe.having(f"config.params.extra.n={count}", "config.params.parallelism=16")
    output_dir, filler = tmp_path / "out", os.urandom(size // 2).hex()

    def answer(request: ModelRequest) -> Answer:
        return Answer("yes", reasoning=f"{request.prompt} {filler}")

    with FakeEndpoint(answer, model_id="m") as endpoint:
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        asked = endpoint.count
        assert case.finish(endpoint.chat_url, output_dir) == 0, case.log(output_dir)
        asked_again = endpoint.count - asked

    assert count <= asked <= count + PREFLIGHT_REQUESTS
    assert asked_again <= PREFLIGHT_REQUESTS
    assert case.coverage(output_dir)["requests"]["cached"] == count
    assert case.score(output_dir) == 1.0
