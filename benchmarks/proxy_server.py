"""The adapter proxy alone, for measuring: prints one line of JSON with its URL and start-up time, then serves.

    python -m benchmarks.proxy_server --upstream URL --folder FOLDER --chain endpoint|default|replay

`endpoint` has no interceptor; `default` is what a run without any adapter configuration gets; `replay` the same,
answering from the folder's store alone.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from pathlib import Path

STARTED = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, help="full URL of the endpoint")
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--chain", choices=("endpoint", "default", "replay"), default="default")
    given = parser.parse_args()
    from nemo_evaluator.adapters.chain import resolve_chain  # noqa: PLC0415  what is imported is timed
    from nemo_evaluator.adapters.proxy import ProxyOptions, Upstream, running_proxy  # noqa: PLC0415

    imported = time.perf_counter()
    chain = () if given.chain == "endpoint" else resolve_chain(None, output_dir=given.folder)
    options = ProxyOptions(output_dir=given.folder, replay_only=given.chain == "replay")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with running_proxy(Upstream(given.upstream), chain, options=options) as proxy:
        ready = time.perf_counter()
        facts = {"url": proxy.url, "import_s": imported - STARTED, "start_s": ready - imported}
        print(json.dumps(facts), flush=True)
        stop.wait()
    sys.exit(0)


if __name__ == "__main__":
    main()
