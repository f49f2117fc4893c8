"""What the adapter proxy costs, beside nginx with kept connections and (--peers) the proxy of nemo-evaluator 0.2.8.

    python -m benchmarks.proxy                  # processor time and latency of each chain
    python -m benchmarks.proxy --slow           # 10,000 requests outstanding at once, each answered after 1 s
    python -m benchmarks.proxy --long 200000    # peak memory of the default chain after that many requests

Each round starts a fresh mock endpoint and a fresh proxy for every target in turn, the proxy on one core, endpoint and
load on another. Reported are medians over the rounds of

* cpu_ms: processor milliseconds of the proxy for one request, 64 at a time;
* x_nginx: the same as a multiple of nginx's in this run;
* p50_ms: median latency with one request at a time; the difference to `direct` is what a proxy adds;
* per_s: requests per second of processor time, which is what one core can do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, environments_folder, make_environment, report, verdict

MOST_ENDPOINT, MOST_DEFAULT, MOST_REPLAY = 3.0, 6.0, 4.0
LEAST_REPLAY_PER_SECOND = 8000
MOST_ADDED_MS = 0.3
LEAST_OF_028 = 25.0
MOST_SLOW, MOST_SLOW_MIB = 1.3, 400.0
START_SECONDS = 60.0

_NGINX = """daemon off; master_process off; worker_processes 1;
pid {folder}/nginx.pid; error_log {folder}/error.log warn;
worker_rlimit_nofile 40000;
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s; client_body_buffer_size 1m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream model {{ server {address}; keepalive 4096; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffers 16 16k; proxy_buffer_size 16k; proxy_read_timeout 600s; }} }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One proxy under test.

    Attributes:
        command: from the endpoint's origin, a folder and a free port to the words that start it; None: no proxy.
        prefill: how many different requests are asked before, through the chain `default` and the same folder.
    """

    command: Callable[[str, Path, int], Sequence[str]] | None
    prefill: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line asked for."""

    requests: int
    rounds: int
    answer_bytes: int
    pin: bool
    nginx: str
    environments: Path
    peers: bool


def _ours(chain: str) -> Callable[[str, Path, int], Sequence[str]]:
    def command(origin: str, folder: Path, _port: int) -> Sequence[str]:
        words = [sys.executable, "-m", "benchmarks.proxy_server", "--upstream", f"{origin}/v1/chat/completions"]
        return [*words, "--folder", str(folder), "--chain", chain]

    return command


def _nginx(program: str) -> Callable[[str, Path, int], Sequence[str]]:
    def command(origin: str, folder: Path, port: int) -> Sequence[str]:
        file = folder / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, address=origin.removeprefix("http://"), port=port))
        return [program, "-c", str(file), "-p", str(folder)]

    return command


def _former(python: Path) -> Callable[[str, Path, int], Sequence[str]]:
    def command(origin: str, folder: Path, port: int) -> Sequence[str]:
        script = ROOT / "benchmarks" / "peers" / "former_proxy.py.in"
        return [str(python), str(script), f"{origin}/v1/chat/completions", str(folder), str(port)]

    return command


def targets(given: Given) -> Mapping[str, Target]:
    """All that are compared, by name."""
    found = {"direct": Target(command=None)}
    if given.nginx:
        found["nginx"] = Target(command=_nginx(given.nginx))
    found["ours, endpoint only"] = Target(command=_ours("endpoint"))
    found["ours, default chain"] = Target(command=_ours("default"))
    found["ours, all from the store"] = Target(command=_ours("replay"), prefill=given.requests * 3)
    if given.peers:
        python = make_environment(given.environments / "byob", ["nemo-evaluator==0.2.8"]) / "python"
        found["0.2.8, default chain"] = Target(command=_former(python))
    return found


@contextlib.contextmanager
def process(words: Sequence[str], *, log: Path, cpu: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """A child on one processor, ended at the end of the block; its output goes to `log`."""
    with log.open("wb") as output:
        child = subprocess.Popen(words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        if cpu is not None:
            os.sched_setaffinity(child.pid, {cpu})
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def first_line(log: Path, child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The line of JSON that a program prints when it serves."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        line = log.read_bytes().partition(b"\n")[0]
        if line.startswith(b"{") and line.endswith(b"}"):
            found: dict[str, Any] = json.loads(line)
            return found
        time.sleep(0.02)
    sys.exit(f"{child.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(url: str) -> None:
    """Wait until `url` answers a request."""
    body = json.dumps({"model": "mock-model", "messages": [{"role": "user", "content": "ready?"}]}).encode()
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
                return
        except OSError:
            if time.monotonic() > deadline:
                sys.exit(f"{url} does not answer")
            time.sleep(0.05)


def ask(url: str, *words: str, cpu: int | None) -> dict[str, Any]:
    """Run the load generator once."""
    command = [sys.executable, "-m", "benchmarks.load", "--url", url, *words]
    # The child inherits the processor that the parent is bound to.
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    finally:
        os.sched_setaffinity(0, before)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


class Bench:
    """One target between a fresh endpoint and the load."""

    def __init__(self, target: Target, given: Given, *, latency: float = 0.0) -> None:
        self.target = target
        self.given = given
        self.latency = latency
        self.proxy_cpu = 0 if given.pin else None
        self.rest_cpu = 1 if given.pin else None

    def run(self, measure: Callable[[str, int], dict[str, Any]]) -> dict[str, Any]:
        """Start everything, and give `measure` the URL and the process id of the proxy."""
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            folder = Path(name)
            words = [sys.executable, "-m", "benchmarks.mock_endpoint", "--latency", str(self.latency)]
            words += ["--answer-bytes", str(self.given.answer_bytes)]
            mock = stack.enter_context(process(words, log=folder / "mock.log", cpu=self.rest_cpu))
            origin = first_line(folder / "mock.log", mock)["url"]
            if self.target.prefill:
                self._prefill(origin, folder)
            if self.target.command is None:
                return measure(f"{origin}/v1/chat/completions", mock.pid)
            port = free_port()
            log = folder / "proxy.log"
            words = list(self.target.command(origin, folder, port))
            proxy = stack.enter_context(process(words, log=log, cpu=self.proxy_cpu))
            if "benchmarks.proxy_server" in words:
                return measure(first_line(log, proxy)["url"], proxy.pid)
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            wait_for(url)
            return measure(url, proxy.pid)

    def _prefill(self, origin: str, folder: Path) -> None:
        log = folder / "prefill.log"
        with process(_ours("default")(origin, folder, 0), log=log, cpu=self.proxy_cpu) as proxy:
            words = ("--requests", str(self.target.prefill), "--concurrency", "64")
            ask(first_line(log, proxy)["url"], *words, cpu=self.rest_cpu)


def measure_load(target: Target, given: Given) -> dict[str, Any]:
    """One round of one target: one at a time, then 64."""
    bench = Bench(target, given)

    def measure(url: str, pid: int) -> dict[str, Any]:
        few = given.requests // 10
        common = ("--pid", str(pid))
        ask(url, "--requests", str(few), "--concurrency", "16", cpu=bench.rest_cpu)
        words = ("--requests", str(few), "--concurrency", "1", "--first", str(few))
        one = ask(url, *words, *common, cpu=bench.rest_cpu)
        words = ("--requests", str(given.requests), "--concurrency", "64", "--first", str(2 * few))
        many = ask(url, *words, *common, cpu=bench.rest_cpu)
        return {
            "p50_ms": one["p50_ms"],
            "cpu_ms": many["cpu_ms"],
            "statuses": many["statuses"],
            "peak": many["peak_mib"],
        }

    return bench.run(measure)


def load_table(given: Given) -> tuple[list[dict[str, Any]], list[str]]:
    """The table of processor time and latency, and how it compares with the aims."""
    chosen = targets(given)
    rounds = [{name: measure_load(target, given) for name, target in chosen.items()} for _ in range(given.rounds)]
    medians = {
        name: {key: statistics.median(one[name][key] for one in rounds) for key in ("cpu_ms", "p50_ms", "peak")}
        for name in chosen
    }
    yardstick = medians.get("nginx", {}).get("cpu_ms")
    rows = [
        {
            "target": name,
            "cpu_ms": found["cpu_ms"],
            "x_nginx": found["cpu_ms"] / yardstick if yardstick else None,
            "p50_ms": found["p50_ms"],
            # A short run may take less than the clock of processor time can tell.
            "per_s": round(1000 / max(found["cpu_ms"], 0.001)),
            "peak_mib": round(found["peak"]),
            "not_200": sum(sum(one[name]["statuses"].values()) - one[name]["statuses"].get("200", 0) for one in rounds),
        }
        for name, found in medians.items()
    ]
    return rows, _load_verdicts({row["target"]: row for row in rows})


def _load_verdicts(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    ours = {key: rows[f"ours, {key}"] for key in ("endpoint only", "default chain", "all from the store")}
    added = ours["endpoint only"]["p50_ms"] - rows["direct"]["p50_ms"]
    lines = [verdict("added p50 latency of the endpoint only, ms", added, MOST_ADDED_MS)]
    if "nginx" in rows:
        aims = (MOST_ENDPOINT, MOST_DEFAULT, MOST_REPLAY)
        lines += [verdict(f"{key}, x nginx", ours[key]["x_nginx"], aim) for key, aim in zip(ours, aims, strict=True)]
    per_second = ours["all from the store"]["per_s"]
    lines.append(
        verdict("all from the store, requests/s of one core", per_second, LEAST_REPLAY_PER_SECOND, at_most=False)
    )
    if "0.2.8, default chain" in rows:
        times = rows["0.2.8, default chain"]["cpu_ms"] / ours["default chain"]["cpu_ms"]
        lines.append(verdict("default chain of 0.2.8 / ours, processor time", times, LEAST_OF_028, at_most=False))
    return lines


def slow_table(given: Given, *, outstanding: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Two waves of `outstanding` requests at once to an endpoint that takes a second."""
    rows = []
    for name, target in targets(given).items():
        if target.prefill:
            continue
        bench = Bench(target, given, latency=1.0)

        def measure(url: str, pid: int, bench: Bench = bench) -> dict[str, Any]:
            words = ("--requests", str(2 * outstanding), "--concurrency", str(outstanding), "--pid", str(pid))
            return ask(url, *words, cpu=bench.rest_cpu)

        found = bench.run(measure)
        answered = found["statuses"].get("200", 0)
        row = {"target": name, "seconds": found["seconds"], "answered": answered, "of": 2 * outstanding}
        rows.append({**row, "peak_mib": round(found["peak_mib"])})
    direct = rows[0]["seconds"]
    lines = []
    for row in rows:
        if row["target"].startswith("ours"):
            lines.append(verdict(f"{row['target']}, seconds / direct", row["seconds"] / direct, MOST_SLOW))
            lines.append(verdict(f"{row['target']}, peak MiB", row["peak_mib"], MOST_SLOW_MIB))
    return rows, lines


def long_table(given: Given, *, requests: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Peak memory of the default chain, a quarter of `requests` after the other."""
    bench = Bench(targets(given)["ours, default chain"], given)
    rows: list[dict[str, Any]] = []

    def measure(url: str, pid: int) -> dict[str, Any]:
        part = requests // 4
        for number in range(4):
            words = ("--requests", str(part), "--concurrency", "64", "--first", str(number * part), "--pid", str(pid))
            found = ask(url, *words, cpu=bench.rest_cpu)
            rows.append(
                {"requests": (number + 1) * part, "cpu_ms": found["cpu_ms"], "peak_mib": round(found["peak_mib"])}
            )
        return rows[-1]

    bench.run(measure)
    return rows, [f"growth from the first to the last quarter: {rows[-1]['peak_mib'] - rows[0]['peak_mib']} MiB"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answer-bytes", type=int, default=2000)
    parser.add_argument("--slow", action="store_true", help="many requests outstanding, instead of the table of chains")
    parser.add_argument("--outstanding", type=int, default=10_000, help="how many with --slow")
    parser.add_argument("--long", type=int, metavar="N", help="peak memory over N requests, instead of the table")
    parser.add_argument("--peers", action="store_true", help="also the proxy of nemo-evaluator 0.2.8")
    parser.add_argument(
        "--nginx", default=shutil.which("nginx") or "", help="program; without it there is no yardstick"
    )
    parser.add_argument("--no-pin", action="store_true", help="do not bind processes to processors")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--environments", type=Path, default=environments_folder())
    words = parser.parse_args()
    given = Given(
        requests=words.requests,
        rounds=words.rounds,
        answer_bytes=words.answer_bytes,
        pin=not words.no_pin and len(os.sched_getaffinity(0)) > 1,
        nginx=words.nginx,
        environments=words.environments,
        peers=words.peers,
    )
    if words.slow:
        rows, notes = slow_table(given, outstanding=words.outstanding)
    elif words.long:
        rows, notes = long_table(given, requests=words.long)
    else:
        rows, notes = load_table(given)
    report(rows, as_json=words.json, notes=notes)


if __name__ == "__main__":
    main()
