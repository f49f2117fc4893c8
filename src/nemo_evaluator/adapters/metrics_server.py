"""The listener that Prometheus reads a run's numbers from."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nemo_evaluator.adapters.metrics import CONTENT_TYPE
from nemo_evaluator.errors import MisconfigurationError

HOST = "127.0.0.1"
PATH = "/metrics"
_POLL_SECONDS = 0.1


@dataclass(slots=True)
class MetricsListener:
    """A listener that is there, whether or not there are numbers yet.

    Attributes:
        url: where it answers.
        text: makes the answer; called from threads of the listener. None as long as there are no numbers.
    """

    url: str
    text: Callable[[], str] | None = None


@contextlib.contextmanager
def serving_metrics(port: int | None) -> Iterator[MetricsListener | None]:
    """Serve `GET /metrics` on loopback until the end of the block.

    Args:
        port: where to listen; 0 lets the kernel choose. None to serve nothing.

    Yields:
        The listener; None when nothing is served.

    Raises:
        MisconfigurationError: the port cannot be listened on.
    """
    if port is None:
        yield None
        return

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != PATH:
                self.send_error(404)
                return
            if listener.text is None:
                self.send_error(503, "the run has not begun")
                return
            body = listener.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nobody wants to read who read."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A reader that leaves early is no event of the run."""

    try:
        server = Server((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise MisconfigurationError(
            f"target.api_endpoint.adapter_config.metrics_port: {HOST}:{port} cannot be listened on: {error}. "
            "0 lets the system choose a port"
        ) from error
    listener = MetricsListener(f"http://{HOST}:{server.server_port}{PATH}")
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
