"""A harness for tests: asks the model, has a judge mark the answers, and writes what it was told."""

from __future__ import annotations

import argparse
import json
import os
import urllib.request
from pathlib import Path


def ask(url: str, content: str) -> str:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        text: str = json.load(response)["choices"][0]["message"]["content"]
    return text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    judge = arguments.judge.rstrip("/")
    if not judge.endswith("/chat/completions"):
        judge += "/chat/completions"
    answers = [ask(arguments.url, f"{os.environ.get('QUESTION', 'question')} {number}") for number in range(3)]
    marks = [ask(judge, f"is this right: {answer}") for answer in answers]
    found = {"value": marks.count("right") / len(marks), "url": arguments.url, "judge": arguments.judge}
    (arguments.out / "probe.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
