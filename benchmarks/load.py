"""Asks an endpoint as fast as it answers, over a fixed number of connections that each keep one request outstanding.

    python -m benchmarks.load --url URL --concurrency 64 --requests 20000 [--distinct N] [--pid PID]

Prints one line of JSON: seconds, answers by status, latencies in milliseconds and, with --pid, what the process behind
the URL used meanwhile. Knows just enough of HTTP/1.1 for servers that send a Content-Length or chunks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

QUESTION = "Explain step by step which of the two sides holds, why the other one does not, and what follows from it. "
RAMP = 512
"""Connections that are opened at the same moment."""


@dataclass(slots=True)
class Load:
    """What is asked, and what came back."""

    head: bytes
    prompt: str
    requests: int
    distinct: int
    first: int
    begun: int = 0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def next(self) -> bytes | None:
        """The next request; None when all have been sent."""
        if self.begun >= self.requests:
            return None
        number = self.first + self.begun % self.distinct
        self.begun += 1
        body = b'{"model":"mock-model","temperature":0,"messages":[{"role":"user","content":"%d %s"}]}' % (
            number,
            self.prompt.encode(),
        )
        return b"%sContent-Length: %d\r\n\r\n%s" % (self.head, len(body), body)

    def over(self, status: str, seconds: float) -> None:
        """One request is."""
        self.statuses[status] += 1
        self.latencies.append(seconds)
        if len(self.latencies) >= self.requests:
            self.done.set()


class Asker(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer = b""
        self.since: float | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first question."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send the next request, or leave."""
        request = self.load.next()
        if request is None:
            self.since = None
            self.transport.close()
            return
        self.buffer, self.since = b"", time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Go on when the answer is whole."""
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if end and _is_whole(head.lower(), body):
            assert self.since is not None
            self.load.over(head[9:12].decode(), time.perf_counter() - self.since)
            self.ask()

    def connection_lost(self, _error: Exception | None) -> None:
        """Count what was not answered."""
        if self.since is not None:
            self.load.over("lost", time.perf_counter() - self.since)


def _is_whole(head: bytes, body: bytes) -> bool:
    _, found, rest = head.partition(b"content-length:")
    if found:
        return len(body) >= int(rest.split(b"\r\n", 1)[0])
    return body.endswith(b"0\r\n\r\n")


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the sorted `values` lie."""
    return values[min(len(values) - 1, int(share * len(values)))]


async def run(load: Load, *, host: str, port: int, concurrency: int, limit: float) -> float:
    """Ask until all is answered.

    Returns:
        Seconds from the first request to the last answer.
    """
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    for first in range(0, concurrency, RAMP):
        count = min(RAMP, concurrency - first)
        await asyncio.gather(*(loop.create_connection(lambda: Asker(load), host, port) for _ in range(count)))
    await asyncio.wait_for(load.done.wait(), limit)
    return time.perf_counter() - started


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--distinct", type=int, default=0, help="how many different requests; 0: all are")
    parser.add_argument("--first", type=int, default=0, help="number of the first request: others make others")
    parser.add_argument("--prompt-bytes", type=int, default=1000)
    parser.add_argument("--pid", type=int, help="measure this process meanwhile")
    parser.add_argument("--limit", type=float, default=300.0, help="give up after this many seconds")
    given = parser.parse_args()
    parts = urlsplit(given.url)
    assert parts.hostname
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    head += "Accept: application/json\r\nUser-Agent: load\r\nAuthorization: Bearer sk-bench\r\n"
    load = Load(
        head=head.encode(),
        prompt=(QUESTION * (given.prompt_bytes // len(QUESTION) + 1))[: given.prompt_bytes],
        requests=given.requests,
        distinct=given.distinct or given.requests,
        first=given.first,
    )
    measured = psutil.Process(given.pid) if given.pid else None
    before = _cpu(measured) if measured else 0.0
    seconds = asyncio.run(
        run(load, host=parts.hostname, port=parts.port or 80, concurrency=given.concurrency, limit=given.limit)
    )
    times = sorted(load.latencies)
    result = {
        "seconds": seconds,
        "statuses": dict(load.statuses),
        "p50_ms": 1000 * percentile(times, 0.5),
        "p99_ms": 1000 * percentile(times, 0.99),
    }
    if measured:
        result["cpu_ms"] = 1000 * (_cpu(measured) - before) / given.requests
        status = Path(f"/proc/{given.pid}/status").read_text()
        result["peak_mib"] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
