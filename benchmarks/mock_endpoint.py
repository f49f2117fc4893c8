"""A model endpoint that costs almost nothing, so that whoever asks it is what is measured.

    python -m benchmarks.mock_endpoint [--latency SECONDS] [--answer-bytes N]

One asyncio protocol that knows just enough of HTTP/1.1 for well-behaved clients: whole requests with a Content-Length
over connections that are kept. Every chat and completions request gets the same answer. Prints one line of JSON with
its URL when it listens; GET /stats says what came since the last POST /reset.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import time
from dataclasses import dataclass, fields

ANSWER = "Both sides are compared step by step, and the second one holds for every case. Answer: B"
_USAGE = {"prompt_tokens": 90, "completion_tokens": 20, "total_tokens": 110}
_COMMON = {"id": "x", "created": 0, "model": "mock-model", "usage": _USAGE}
_CHAT = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}
_TEXT = {"index": 0, "finish_reason": "stop", "text": ANSWER}


@dataclass(slots=True)
class Stats:
    """What came since the last reset; times in seconds."""

    requests: int = 0
    answered: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    connections: int = 0
    first: float = 0.0
    last: float = 0.0

    def reset(self) -> None:
        """Count anew; the object stays, because all connections hold it."""
        for field in fields(self):
            setattr(self, field.name, field.default)

    def as_json(self) -> bytes:
        """The counts, and the seconds from the first request to the last answer."""
        return json.dumps(
            {
                "requests": self.requests,
                "answered": self.answered,
                "max_in_flight": self.max_in_flight,
                "connections": self.connections,
                "window_s": self.last - self.first,
            }
        ).encode()


def response(body: bytes) -> bytes:
    """A whole response with `body`."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chat(content: str) -> bytes:
    """A whole response to a chat request."""
    choice = {**_CHAT, "message": {"role": "assistant", "content": content}}
    return response(json.dumps({**_COMMON, "object": "chat.completion", "choices": [choice]}).encode())


def prose(count: int) -> str:
    """`count` characters of made-up words; packed, little more than half of it is left."""
    chance = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    weights = [1 / (rank + 1) ** 0.5 for rank in range(len(letters))]
    words = ["".join(chance.choices(letters, weights, k=chance.randint(2, 9))) for _ in range(2000)]
    return " ".join(chance.choices(words, k=count // 3))[:count]


COMPLETION = response(json.dumps({**_COMMON, "object": "text_completion", "choices": [_TEXT]}).encode())
MODELS = response(json.dumps({"object": "list", "data": [{"id": "mock-model", "object": "model"}]}).encode())


class Endpoint(asyncio.Protocol):
    """One connection."""

    def __init__(self, stats: Stats, latency: float, answer: bytes) -> None:
        self.stats = stats
        self.chat = answer
        self.latency = latency
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.stats.connections += 1

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end])
            length = _content_length(head)
            if len(self.buffer) < end + 4 + length:
                return
            del self.buffer[: end + 4 + length]
            self.handle(head)

    def handle(self, head: bytes) -> None:
        """Answer one request."""
        method, path = head.split(b" ", 2)[:2]
        if path == b"/stats":
            self.transport.write(response(self.stats.as_json()))
        elif path == b"/reset":
            self.stats.reset()
            self.transport.write(response(b"{}"))
        elif method == b"GET":
            self.transport.write(MODELS)
        else:
            self.ask(self.chat if b"chat" in path else COMPLETION)

    def ask(self, answer: bytes) -> None:
        """Take a question in, and answer it when it is time."""
        stats = self.stats
        stats.first = stats.first or time.perf_counter()
        stats.requests += 1
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        if self.latency:
            self.loop.call_later(self.latency, self.answer, answer)
        else:
            self.answer(answer)

    def answer(self, answer: bytes) -> None:
        """Send an answer."""
        if not self.transport.is_closing():
            self.transport.write(answer)
        self.stats.answered += 1
        self.stats.in_flight -= 1
        self.stats.last = time.perf_counter()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(latency: float, answer: bytes) -> None:
    """Listen on a port that the kernel chooses, for ever."""
    stats = Stats()
    server = await asyncio.get_running_loop().create_server(
        lambda: Endpoint(stats, latency, answer), "127.0.0.1", 0, backlog=4096
    )
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"url": f"http://127.0.0.1:{port}"}), flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds from a request to its answer")
    parser.add_argument("--answer-bytes", type=int, help="length of the text of chat answers; default: one sentence")
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(serve(given.latency, chat(prose(given.answer_bytes) if given.answer_bytes else ANSWER)))


if __name__ == "__main__":
    main()
