"""A proxy in a process that may open few files: serves the endpoint whose URL is given until its input ends."""

from __future__ import annotations

import resource
import sys

from nemo_evaluator.adapters.proxy import Upstream, running_proxy

if __name__ == "__main__":
    url, limit = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with running_proxy(Upstream(url)) as proxy:
        sys.stdout.write(f"{proxy.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
