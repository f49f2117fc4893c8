"""Starts proxies for tests in a process of its own: asks each one whose it is, or serves until its input ends."""

from __future__ import annotations

import http.client
import json
import sys
from contextlib import ExitStack
from urllib.parse import urlsplit

from nemo_evaluator.adapters.proxy import running_proxy
from nemo_evaluator.adapters.upstream import Upstream


def ask(url: str) -> str:
    """The answer that comes through the proxy at `url`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "whose are you?"}]})
    connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
    content: str = json.load(connection.getresponse())["choices"][0]["message"]["content"]
    connection.close()
    return content


def main() -> None:
    """`serving_proxies.py URL …`: one proxy for each URL; with a single one it serves."""
    urls = sys.argv[1:]
    with ExitStack() as stack:
        proxies = [stack.enter_context(running_proxy(Upstream(url))) for url in urls]
        if len(urls) == 1:
            sys.stdout.write(f"{proxies[0].url}\n")
            sys.stdout.flush()
            sys.stdin.read()
            return
        for url, proxy in zip(urls, proxies, strict=True):
            assert ask(proxy.url) == urlsplit(url).path, proxy.url


if __name__ == "__main__":
    main()
