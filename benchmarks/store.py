"""What the store costs: adding answers, giving them again, opening a file of 100,000, and its size.

    python -m benchmarks.store

Requests of 1.5 KB and answers of 2 KB, of invented words, go through the very functions that the proxy calls: the keys
of the request, the entry, one transaction for all that come in one turn of the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import resource
import string
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import report, verdict
from multidict import CIMultiDict

from nemo_evaluator.adapters.answers import facts_of
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.messages import Request
from nemo_evaluator.adapters.store.identity import identify
from nemo_evaluator.adapters.store.observed import Observer
from nemo_evaluator.adapters.store.reader import StoreReader
from nemo_evaluator.adapters.store.record import STORE_FILE
from nemo_evaluator.adapters.store.store import Store

AIMS = {"write, CPU us": 35.0, "hit, CPU us": 40.0, "open, s": 1.0, "first answer, ms": 50.0, "size / raw": 0.6}
URL = "http://127.0.0.1:8000/v1/chat/completions"
HEADERS = [("Date", "today"), ("Server", "uvicorn"), ("Content-Type", "application/json")]
WORDS = 5000
QUESTION_CHARACTERS = 1350
ANSWER_CHARACTERS = 1700
MEGA = 1_000_000


class Texts:
    """Requests and answers that differ from each other; the n-th is the same at each call."""

    def __init__(self) -> None:
        chance = random.Random(1)
        letters = string.ascii_lowercase + "etaoin" * 4
        self._words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(WORDS)]
        # As in any language: the n-th word comes 1/n as often as the first (Zipf's law).
        self._weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(WORDS)))

    def _text(self, chance: random.Random, characters: int) -> str:
        return " ".join(chance.choices(self._words, cum_weights=self._weights, k=characters // 5))[:characters]

    def pair(self, number: int) -> tuple[bytes, bytes]:
        """The body of a request, and that of its answer."""
        chance = random.Random(number)
        question = {
            "model": "mock-model",
            "messages": [{"role": "user", "content": self._text(chance, QUESTION_CHARACTERS)}],
            "temperature": 0.0,
            "max_tokens": 1024,
        }
        answer = {
            "id": f"chatcmpl-{chance.getrandbits(64):x}",
            "object": "chat.completion",
            "created": 1_700_000_000 + number,
            "model": "mock-model",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": self._text(chance, ANSWER_CHARACTERS)},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 300, "completion_tokens": 400, "total_tokens": 700},
        }
        return json.dumps(question).encode(), json.dumps(answer).encode()


def request_of(body: bytes, number: int) -> Request:
    headers = CIMultiDict(
        {"Content-Type": "application/json", "Authorization": "Bearer a-secret-of-the-run", "User-Agent": "harness/1.0"}
    )
    return Request("POST", URL, headers, body, id=f"bench-{number}")


def put(store: Store, observer: Observer, request: Request, exchange: Exchange) -> asyncio.Future[bool]:
    """What `caching` does with an answer."""
    entry = observer.answered(request, identify(request), exchange, exchange.body, HEADERS)
    entry.time = time.time()
    return store.add(entry)


async def write(path: Path, texts: Texts, *, count: int, at_once: int) -> tuple[float, int]:
    """Add `count` answers, `at_once` in each turn of the loop; CPU seconds, and bytes of all bodies."""
    store, observer = Store(path), Observer({"SOME_API_KEY": "a-secret-of-the-environment"})
    seconds, raw = 0.0, 0
    for first in range(0, count, at_once):
        waiting = []
        for number in range(first, min(first + at_once, count)):
            question, answer = texts.pair(number)
            raw += len(question) + len(answer)
            exchange = Exchange(200, facts=facts_of(answer), seconds=1.0, received=len(answer), body=answer)
            exchange.end()
            waiting.append((request_of(question, number), exchange))
        started = cpu()
        stored = [put(store, observer, request, exchange) for request, exchange in waiting]
        if not all([await one for one in stored]):
            raise SystemExit("an answer was not stored")
        seconds += cpu() - started
    started = cpu()
    store.close()
    return seconds + cpu() - started, raw


def read(path: Path, texts: Texts, *, count: int, hits: int) -> dict[str, float]:
    """Open the store again as a resumed run does, and ask for answers."""
    started = time.perf_counter()
    store = Store(path)
    shelf = store.shelf()
    opened = time.perf_counter() - started
    chance = random.Random(2)
    numbers = chance.sample(range(count), hits)
    if shelf is None:
        raise SystemExit("the store cannot be read")
    first, seconds = 0.0, 0.0
    for number in numbers:
        question, answer = texts.pair(number)
        request = request_of(question, number)
        wall, started = time.perf_counter(), cpu()
        found = shelf.find(identify(request))
        seconds += cpu() - started
        first = first or 1000 * (time.perf_counter() - wall)
        if found is None or found.content.response != answer:
            raise SystemExit(f"answer {number} is not the one that was stored")
    store.close()
    return {"open, s": opened, "first answer, ms": first, "hit, CPU us": MEGA * seconds / hits}


def cpu() -> float:
    """Seconds of user and system time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=64, help="answers in one turn of the event loop")
    parser.add_argument("--hits", type=int, default=10_000, help="answers that are asked for again")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    texts = Texts()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / STORE_FILE
        seconds, raw = asyncio.run(write(path, texts, count=given.answers, at_once=given.at_once))
        measured: dict[str, Any] = {"answers": given.answers, "write, CPU us": MEGA * seconds / given.answers}
        measured |= read(path, texts, count=given.answers, hits=min(given.hits, given.answers))
        measured["size / raw"] = path.stat().st_size / raw
        started = time.perf_counter()
        with StoreReader(path) as reader:
            if sum(1 for _ in reader.records()) != given.answers:
                raise SystemExit("records are missing")
        measured["list all, s"] = time.perf_counter() - started
    measured["peak MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report([measured], as_json=given.json, notes=[verdict(name, measured[name], aim) for name, aim in AIMS.items()])


if __name__ == "__main__":
    main()
