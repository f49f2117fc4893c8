"""The adapter proxy of a run: it stands on loopback between the harness and the endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_evaluator import env
from nemo_evaluator.adapters.chain import check_endpoint_type
from nemo_evaluator.adapters.context import Context, Ends
from nemo_evaluator.adapters.endpoint import Endpoint
from nemo_evaluator.adapters.garbage import seldom_collected
from nemo_evaluator.adapters.interceptor import Closes, NamedInterceptor, compose
from nemo_evaluator.adapters.interceptors.null_content import fill_null_content
from nemo_evaluator.adapters.messages import MODEL, Request, Response
from nemo_evaluator.adapters.redaction import redact_text
from nemo_evaluator.adapters.registration import STAGES
from nemo_evaluator.adapters.registry import build
from nemo_evaluator.adapters.route import Route
from nemo_evaluator.adapters.server import HarnessServer, ServedRoute
from nemo_evaluator.adapters.stats import ProxyStats, StatsRecorder
from nemo_evaluator.adapters.steering import Steering, steerable
from nemo_evaluator.adapters.store.store import Store
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.api.adapter_config import InterceptorConfig
from nemo_evaluator.errors import EvaluatorError, MisconfigurationError

__all__ = ["ProxyOptions", "Route", "RunningProxy", "Upstream", "running_proxy"]

_log = logging.getLogger(__name__)

_BACKLOG = 4096
_MAX_OPEN_FILES = 65536
_STOP_SECONDS = 0.2
_JOIN_SECONDS = 15.0
_CLOSE_SECONDS = 3.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  what a user asked for by ADAPTER_HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """How a proxy serves, beside its routes.

    Attributes:
        output_dir: the folder of the run, for interceptors that write files; None when there is none.
        replay_only: answer from the store alone; a request that it does not have ends the run.
        on_end: called once, from the proxy's thread, with the reason why an interceptor ends the run.
    """

    output_dir: Path | None = None
    replay_only: bool = False
    on_end: Callable[[str], None] | None = None


class _Served:
    """A route while it is served."""

    def __init__(self, route: Route, context: Context) -> None:
        self.route = route
        self.context = context
        self.token = secrets.token_urlsafe(24)
        self.endpoint = Endpoint(route.upstream, context.stats, authorization=_authorization(route, context.environ))
        context.secrets = self.endpoint.secrets
        stages = build(route.chain, context, known=route.known)
        self.links = [link for stage in STAGES for link in stages[stage]]
        context.keeps_records = bool(stages["store"])
        check_endpoint_type(route.chain, None, url=route.upstream.url)
        self._answer = compose([*stages["store"], *steerable(stages["transport"], context)], self.endpoint)
        self.chain = compose(stages["harness"], self._with_content)

        self.planned: int | None = None

    async def _with_content(self, request: Request) -> Response:
        if request.planned is not None:
            self.planned = request.planned
        # Outside of the store, which keeps what the endpoint sent.
        response = await self._answer(request)
        if not isinstance(response.body, bytes):
            request.opened(response.body)
        return await fill_null_content(response)


class RunningProxy:
    """A proxy in its own thread and event loop; all methods may be called from any thread."""

    def __init__(self, routes: Sequence[Route], options: ProxyOptions, *, listener: socket.socket) -> None:
        self._listener = listener
        self._ends = Ends(told=options.on_end)
        shared: dict[tuple[type, str], Any] = {}
        self._shared = shared
        self._served = {
            route.name: _Served(
                route,
                Context(
                    upstream=route.upstream,
                    name=route.name,
                    output_dir=options.output_dir,
                    stats=StatsRecorder(),
                    ends=self._ends,
                    environ=os.environ,
                    replay_only=options.replay_only,
                    shared_objects=shared,
                ),
            )
            for route in routes
        }
        self.steering = Steering({name: served.context for name, served in self._served.items()})
        host, port = listener.getsockname()[:2]
        self._origin = f"http://{_url_host(host)}:{port}"
        self._server = HarnessServer(
            [
                ServedRoute(
                    token=served.token,
                    name=name,
                    upstream=served.route.upstream,
                    chain=served.chain,
                    stats=served.context.stats,
                    secrets=served.context.secrets,
                )
                for name, served in self._served.items()
            ],
            ends=self._ends,
        )
        self._thread = threading.Thread(target=self._run, name="adapter-proxy", daemon=True)
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """What the harness gets in place of the model's URL: same path, no query, and a secret first segment."""
        return self.url_of(MODEL)

    def url_of(self, name: str) -> str:
        """What the harness gets in place of the URL of the route `name`."""
        served = self._served[name]
        return f"{self._origin}/{served.token}{served.route.upstream.path}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its routes, the model's first."""
        return tuple(self._served)

    @property
    def is_serving(self) -> bool:
        """Whether it answers; False after `stop`, or when its thread broke down."""
        return self._thread.is_alive()

    @property
    def ends(self) -> Ends:
        """Why an interceptor ended the run, if one did."""
        return self._ends

    @property
    def planned_samples(self) -> int | None:
        """How many samples the harness means to ask the model for; None where it has not said."""
        return self._served[MODEL].planned

    @property
    def store(self) -> tuple[Path, int | None] | None:
        """The file of the run's store and the number of this start in it, once it has one; None without a store."""
        found = next((one for one in tuple(self._shared.values()) if isinstance(one, Store)), None)
        return None if found is None else (found.path, found.start)

    def stats(self, name: str = MODEL) -> ProxyStats:
        """What happened so far on the route `name`."""
        return self._served[name].context.stats.snapshot()

    def start(self) -> None:
        """Serve. Connections are accepted from now on, and wait until the thread has loaded what it needs."""
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and every connection, in less than a second, whatever is under way.

        Interceptors that have something left to do get a few seconds more.

        Raises:
            EvaluatorError: the proxy had broken down before.
        """
        self._stopping.set()
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            # A loop that broke down is closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)
        self._thread.join(_JOIN_SECONDS)
        if self._error is not None:
            raise EvaluatorError(f"the adapter proxy broke down: {self._error!r}") from self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  a thread's errors reach nobody: `stop` raises it
            self._error = error
        finally:
            # Whoever still asks is refused at once, rather than left waiting.
            self._listener.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_log_in_one_line)
        self._stop = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._close_shared)
            for served in self._served.values():
                await stack.enter_async_context(served.endpoint)
                stack.push_async_callback(_close_links, served.links)
            protocols = self._server.protocol_factory()
            listener = await self._loop.create_server(protocols, sock=self._listener, backlog=_BACKLOG)
            try:
                # `stop` may have come before there was an event to set.
                if not self._stopping.is_set():
                    await self._stop.wait()
            finally:
                listener.close()
                await protocols.shutdown(_STOP_SECONDS)

    def _close_shared(self) -> None:
        for found in self._shared.values():
            close = getattr(found, "close", None)
            if close is not None:
                try:
                    close()
                except Exception as error:  # noqa: BLE001  one that fails must neither keep the others open nor lose the run
                    _log.error("%s failed when it was closed: %s", type(found).__name__, redact_text(repr(error)))


async def _close_links(links: Sequence[NamedInterceptor]) -> None:
    """Let interceptors finish, each within its time; one that fails disturbs no other."""
    for link in links:
        if isinstance(link.interceptor, Closes):
            try:
                await asyncio.wait_for(link.interceptor.close(), _CLOSE_SECONDS)
            except Exception as error:  # noqa: BLE001  a third party's fault must not lose the run
                _log.error("interceptor %r failed when it was closed: %s", link.name, redact_text(repr(error)))


def _authorization(route: Route, environ: Mapping[str, str]) -> str | None:
    if route.api_key_name is None:
        return None
    key = environ.get(route.api_key_name)
    if not key:
        raise MisconfigurationError(
            f"the key of the endpoint {route.name!r} is expected in the environment variable {route.api_key_name}, "
            "which is unset or empty"
        )
    return f"Bearer {key}"


def _log_in_one_line(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """In place of asyncio's handler, which logs tracebacks, and objects that may hold secrets."""
    error = context.get("exception")
    cause = f": {type(error).__name__}: {redact_text(str(error))}" if error is not None else ""
    _log.error("the adapter proxy's event loop: %s%s", context.get("message", "an error"), cause)


@contextlib.contextmanager
def running_proxy(
    model: Upstream | Route,
    chain: Sequence[InterceptorConfig] = (),
    *,
    others: Sequence[Route] = (),
    options: ProxyOptions | None = None,
) -> Iterator[RunningProxy]:
    """Run a proxy before the endpoints for the time of the `with` block.

    It listens on 127.0.0.1 (`ADAPTER_HOST`) at a port chosen by the kernel (`ADAPTER_PORT`), and serves only those who
    know its URLs. Several may run side by side, from any thread.

    Args:
        model: the endpoint of the model under test.
        chain: the interceptors, as `resolve_chain` returns them, when `model` is an upstream.
        others: further endpoints behind the same listener, each under its own secret path.
        options: the rest.

    Raises:
        MisconfigurationError: the address cannot be listened on, or an interceptor's parameters are wrong.
        EvaluatorError: when the block is left: the proxy had broken down.
    """
    raise_open_file_limit()
    first = model if isinstance(model, Route) else Route(upstream=model, chain=tuple(chain))
    listener = _listen()
    try:
        proxy = RunningProxy((first, *others), options or ProxyOptions(), listener=listener)
    except BaseException:
        listener.close()
        raise
    with seldom_collected():
        proxy.start()
        try:
            yield proxy
        except BaseException:
            # What went wrong in the block matters more than a proxy that broke down with it.
            with contextlib.suppress(EvaluatorError):
                proxy.stop()
            raise
        proxy.stop()


def raise_open_file_limit() -> None:
    """Allow this process, and the harness that inherits it, as many connections as the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen() -> socket.socket:
    host = env.get(env.PROXY_HOST) or "127.0.0.1"
    port_text = env.get(env.PROXY_PORT) or "0"
    if not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:  # noqa: PLR2004  the largest port
        raise MisconfigurationError(f"{env.PROXY_PORT} must be a port number from 0 to 65535, not {port_text!r}")
    try:
        found = socket.getaddrinfo(host, int(port_text), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise MisconfigurationError(
            f"the adapter proxy cannot listen on {host}:{port_text}: {error.strerror or error}. "
            f"Set {env.PROXY_HOST} and {env.PROXY_PORT} to an address of this machine that is free, or unset them."
        ) from error


def _url_host(host: str) -> str:
    host = _ANY_ADDRESS.get(host, host)
    return f"[{host}]" if ":" in host else host
