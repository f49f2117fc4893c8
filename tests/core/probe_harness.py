"""A harness for tests: asks the endpoint a few times and writes what it got; its options make it misbehave."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def ask(url: str, model: str, number: int) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}], "max_tokens": 8}
    key = os.environ.get("API_KEY")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            content = json.load(response)["choices"][0]["message"]["content"]
    except (urllib.error.HTTPError, ValueError, LookupError):
        # As careless harnesses do: whatever went wrong makes a wrong answer.
        return 0
    return int(content == "yes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--exit", type=int, default=0)
    parser.add_argument("--sleep", type=float, default=0)
    parser.add_argument("--value", default=None)
    arguments = parser.parse_args()
    sys.stdout.write(f"asking {arguments.model}\n")
    sys.stdout.flush()
    with ThreadPoolExecutor(arguments.parallel) as threads:
        right = list(threads.map(lambda number: ask(arguments.url, arguments.model, number), range(arguments.n)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    value = arguments.value or repr(sum(right) / max(len(right), 1))
    (arguments.out / "probe.json").write_text(json.dumps({"value": value, "argv": sys.argv[1:]}))
    (arguments.out / "asked").touch()
    time.sleep(float(os.environ.get("PROBE_SLEEP", arguments.sleep)))
    sys.exit(int(os.environ.get("PROBE_EXIT", arguments.exit)))


if __name__ == "__main__":
    main()
