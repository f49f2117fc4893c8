"""Many runs, many proxies, many requests and few files: nothing is lost or mixed up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from tests.compat.conftest import bare_environment
from tests.core.conftest import Request, Response, Script, ScriptedServer
from tests.core.conftest import serve as serve  # noqa: PLC0414  a fixture, shared
from tests.reliability.conftest import ROUNDS, RUN_SECONDS, Case, Questions, tree

from nemo_evaluator.testing import FakeEndpoint, ModelRequest

RUNS = 64 if ROUNDS else 6
PROCESSES, PROXIES = (20, 20) if ROUNDS else (6, 5)
HELPER = Path(__file__).with_name("serving_proxies.py")
MEBIBYTE = 2**20


def test_runs_side_by_side_do_not_mix(ours: Case, tmp_path: Path) -> None:
    case, shares = ours.asking(40), (0.0, 1.0)
    with ExitStack() as stack:
        # Every second run's model is right throughout, the others' is wrong.
        endpoints = [
            stack.enter_context(FakeEndpoint(_model(case.questions, right=right), model_id="m"))
            for right in (False, True)
        ]
        folders = [tmp_path / "root" / f"run{number}" for number in range(RUNS)]
        folders[0].parent.mkdir()
        started = [case.start(endpoints[number % 2].chat_url, folder) for number, folder in enumerate(folders)]
        peak = 0
        while any(process.poll() is None for process in started):
            peak = max(peak, sum(_memory(process.pid) for process in started))
            time.sleep(0.2)
        codes = [process.returncode for process in started]

    assert codes == [0] * RUNS
    assert [case.score(folder) for folder in folders] == [shares[number % 2] for number in range(RUNS)]
    for folder in folders:
        counted = case.coverage(folder)["requests"]
        assert counted["answered"] == counted["sent"] == counted["exchanges"] == 40
    # 200 MiB a run, with its harness.
    assert peak < RUNS * 200 * MEBIBYTE


def _model(questions: Questions, *, right: bool) -> Callable[[ModelRequest], str]:
    """Answers all questions right, or all of them wrong."""

    def answer(request: ModelRequest) -> str:
        _, found, rest = request.prompt.partition("Which is letter ")
        number = int(rest[:4]) if found else 0
        return f"Answer: {questions.rows[(number + (not right)) % questions.count]['answer']}"

    return answer


def _memory(pid: int) -> int:
    total = 0
    for process in tree(pid):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def test_proxies_that_start_together_are_each_their_own(serve: Callable[[Script], ScriptedServer]) -> None:
    def script(request: Request) -> Response:
        message = {"role": "assistant", "content": request.path}
        return Response(body={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    server = serve(script)
    urls = [
        [f"{server.url}/{process}-{proxy}/v1/chat/completions" for proxy in range(PROXIES)]
        for process in range(PROCESSES)
    ]
    started = [
        subprocess.Popen([sys.executable, str(HELPER), *mine], stderr=subprocess.PIPE, text=True) for mine in urls
    ]
    said = [process.communicate(timeout=60)[1] for process in started]

    assert [process.returncode for process in started] == [0] * PROCESSES, said
    assert len(server.requests) == PROCESSES * PROXIES


def test_few_open_files_make_a_run_slower_and_not_wrong(ours: Case, tmp_path: Path) -> None:
    case, output_dir = ours.having("config.params.parallelism=128"), tmp_path / "out"
    with FakeEndpoint(case.questions.answer, model_id="m", latency=0.2) as endpoint:
        done = subprocess.run(
            ["bash", "-c", 'ulimit -n 256; exec "$@"', "bash", *case.words(endpoint.chat_url, output_dir)],
            env={**bare_environment(), **case.variables},
            capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert case.score(output_dir) == pytest.approx(case.questions.score)
    counted = case.coverage(output_dir)["requests"]
    assert counted["answered"] == counted["sent"] == counted["exchanges"] == case.questions.count


@pytest.fixture
def proxy_of() -> Iterator[Callable[[str], tuple[str, psutil.Process]]]:
    """Starts a proxy in a process of its own."""
    with ExitStack() as stack:

        def start(url: str) -> tuple[str, psutil.Process]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, str(HELPER), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            # Closing its input ends it.
            assert process.stdin is not None
            assert process.stdout is not None
            stack.callback(process.stdin.close)
            return process.stdout.readline().strip(), psutil.Process(process.pid)

        yield start


def test_clients_that_never_read_their_answers_cost_those_answers_only(
    proxy_of: Callable[[str], tuple[str, psutil.Process]],
) -> None:
    clients, size = 50, MEBIBYTE
    with FakeEndpoint("x" * size, model_id="m") as endpoint:
        url, process = proxy_of(endpoint.chat_url)
        _exchange(url)
        before = process.memory_info().rss
        for _ in range(3):
            deaf = [_ask_and_never_read(url) for _ in range(clients)]
            # Others are answered meanwhile.
            assert all(_exchange(url) > size for _ in range(10))
            growth = process.memory_info().rss - before
            for connection in deaf:
                connection.close()
        asked = endpoint.count

    assert asked == 1 + 3 * (clients + 10)
    # The answers are there once, not once for each time that clients came and left.
    assert growth < 2.5 * clients * size


def _request(url: str) -> tuple[str, int, bytes]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "long"}]}).encode()
    head = f"POST {parts.path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return parts.hostname, parts.port, f"{head}\r\n".encode() + body


def _ask_and_never_read(url: str) -> socket.socket:
    host, port, request = _request(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, port))
    connection.sendall(request)
    return connection


def _exchange(url: str) -> int:
    """Ask and read; the answer's size."""
    host, port, request = _request(url)
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(request.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost"))
        size = 0
        while data := connection.recv(2**16):
            size += len(data)
    return size
