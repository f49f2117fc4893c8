"""The proxy's face towards the harness: one listener, a secret path, requests in and responses out."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from multidict import CIMultiDict

from nemo_evaluator.adapters.context import Ends
from nemo_evaluator.adapters.failures import SHOULD_RETRY, UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext, InterceptorFailure
from nemo_evaluator.adapters.messages import Request, Response, error_response
from nemo_evaluator.adapters.redaction import redact_text, secrets_of
from nemo_evaluator.adapters.server_head import Incoming
from nemo_evaluator.adapters.server_protocol import ClientGone, Connection, Connections
from nemo_evaluator.adapters.server_reader import Limits
from nemo_evaluator.adapters.server_reply import Reply
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.adapters.upstream import Upstream

MAX_REQUEST_BYTES = 256 * 1024 * 1024
MAX_REQUEST_SECONDS = 120.0
STALLED_SECONDS = 300.0
"""How long a client may take nothing of an answer that waits for it."""
_LARGEST_HEADER = 64 * 1024
_IDLE_SECONDS = 3630.0
_MOST_TOLD = 5
_LINGER_SECONDS = 5.0

_MOST_ADDRESSES = 1000
"""Harnesses use few addresses; those are found without being put together anew."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedRoute:
    """What requests under one secret path get."""

    token: str
    name: str
    upstream: Upstream
    chain: CallNext
    stats: StatsRecorder
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    _addresses: dict[tuple[bytes, bytes], str] = field(default_factory=dict, repr=False)

    def address(self, path: bytes, query: bytes) -> str | None:
        """The URL that a path after the token's slash stands for; None when it is not below the endpoint's base."""
        found = self._addresses.get((path, query))
        if found is not None:
            return found
        url = self.upstream.target(f"/{path.decode('latin-1')}" if path else "", query.decode("latin-1"))
        if url is not None and len(self._addresses) < _MOST_ADDRESSES:
            self._addresses[path, query] = url
        return url


class HarnessServer:
    """Answers the harness's requests by means of the chains."""

    def __init__(self, routes: Sequence[ServedRoute], *, ends: Ends) -> None:
        self.ends = ends
        self.first = routes[0]
        self._routes = [(route.token.encode(), route) for route in routes]
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._told: Counter[str] = Counter()

    def tell(self, text: str, code: str) -> None:
        """Log a failure on this side; of one kind only the first few, for a broken interceptor fails every request."""
        self._told[code] += 1
        if self._told[code] <= _MOST_TOLD:
            last = " (further failures of it are counted, and not logged)" if self._told[code] == _MOST_TOLD else ""
            _log.error("%s%s", text, last)

    def protocol_factory(self) -> Connections:
        """The protocol factory for a listener in the running event loop."""
        limits = Limits(
            head_bytes=_LARGEST_HEADER,
            request_bytes=MAX_REQUEST_BYTES,
            request_seconds=MAX_REQUEST_SECONDS,
            idle_seconds=_IDLE_SECONDS,
            stalled_seconds=STALLED_SECONDS,
            linger_seconds=_LINGER_SECONDS,
        )
        return Connections(self._admit, limits)

    def _admit(self, incoming: Incoming) -> _Visit:
        target = incoming.target
        if not target.startswith(b"/"):
            # The absolute form, which a server must understand (RFC 9112, 3.2.2).
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        path, _, query = target.partition(b"?")
        token, _, rest = path[1:].partition(b"/")
        # All are compared, so that the time taken says nothing.
        found = [route for known, route in self._routes if hmac.compare_digest(token, known)]
        if not found:
            return _Visit(self, incoming, None, None)
        route = found[0]
        return _Visit(self, incoming, route, route.address(rest, query))

    def next_id(self) -> str:
        """An id that no other request of the run has."""
        return f"{self._prefix}-{next(self._numbers)}"


class _Visit:
    """One request of the harness: answered and counted once, whatever happens."""

    __slots__ = ("_is_over", "_request", "_route", "_server", "_url", "incoming")

    def __init__(self, server: HarnessServer, incoming: Incoming, route: ServedRoute | None, url: str | None) -> None:
        self._server = server
        self.incoming = incoming
        self._route = route
        self._url = url
        self._request: Request | None = None
        self._is_over = True
        if route is not None and url is not None and incoming.method == "POST":
            self._is_over = False
            route.stats.started()
        elif incoming.method:
            (route or server.first).stats.other()

    @property
    def keeps_body(self) -> bool:
        return self._url is not None

    def left(self) -> None:
        if not self._is_over and self._route is not None:
            self._route.stats.abandoned()
            self._over(None, None)

    async def answer(self, connection: Connection) -> None:
        try:
            response = await self._response()
            try:
                await self._send(response, connection)
            finally:
                if not isinstance(response.body, bytes):
                    await response.aclose()
        except (asyncio.CancelledError, ClientGone):
            self.left()
            raise
        finally:
            if self._request is not None and self._request.streams is not None:
                await self._request.close_streams()
            self._over(None, None)

    def _over(self, status: int | None, flaw: str | None) -> None:
        """Count what the harness is told; called just before it has all of the answer."""
        if not self._is_over and self._route is not None:
            self._is_over = True
            self._route.stats.ended(status, flaw=flaw)

    async def _send(self, response: Response, connection: Connection) -> None:
        reply = Reply(response, self.incoming, connection, over=self._over)
        try:
            if isinstance(response.body, bytes):
                reply.send(response.body)
            else:
                await reply.stream(response.body)
        except UpstreamFailure:
            # It is counted by whoever raised it; the harness sees that the answer is not whole.
            reply.cut()
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001  a third party's stream, which no stage of the chain can answer for
            told = self._fault(f"the answer cannot be sent: {type(error).__name__}: {error}", code="answer")
            if reply.has_begun:
                reply.cut()
            else:
                await self._send(told, connection)

    async def _response(self) -> Response:
        incoming, route, url = self.incoming, self._route, self._url
        if incoming.refusal is not None:
            return _refusal(*incoming.refusal)
        if route is None:
            return _refusal(401, "the path does not begin with this run's token")
        if url is None:
            return _refusal(404, f"the path is not below the endpoint's base {route.upstream.base_path or '/'}")
        headers = CIMultiDict(incoming.headers)
        request_id = self._server.next_id()
        self._request = Request(incoming.method, url, headers, incoming.body, upstream=route.name, id=request_id)
        self._request.sample = incoming.sample
        self._request.planned = incoming.planned
        incoming.body = b""
        return await self._respond(self._request, route)

    async def _respond(self, request: Request, route: ServedRoute) -> Response:
        """The chain's response; its failures become errors that say whose they are."""
        ends = self._server.ends
        if ends.reason is not None and request.is_counted:
            return error_response(ends.status, ends.reason, kind="run_ended", code=ends.kind)
        try:
            return await route.chain(request)
        except UpstreamFailure as failure:
            if request.is_counted and not failure.is_counted:
                route.stats.exchange_failed(failure.status, str(failure), kind=failure.code)
            told = error_response(failure.status, str(failure), kind="upstream_error", code=failure.code)
            if failure.is_last_attempt:
                told.headers[SHOULD_RETRY] = "false"
            return told
        except InterceptorFailure as failure:
            return self._fault(str(failure), kind="interceptor_error", code=failure.name)
        except Exception as error:  # noqa: BLE001  a fault of ours must reach the harness as an answer, not as a hang
            # Those of the interceptors are caught above: what is left is the innermost stage.
            text = f"the proxy failed at the stage 'endpoint': {type(error).__name__}: {error}"
            return self._fault(text, code="endpoint")

    def _fault(self, text: str, *, code: str, kind: str = "proxy_error") -> Response:
        """The answer to a request that failed on this side: it is logged in one line, and counted."""
        if self._request is not None:
            own = frozenset() if self._route is None else self._route.secrets
            text = redact_text(text, own | secrets_of(self._request.headers.items(), self._request.url))
        self._server.tell(text, code)
        if self._route is not None:
            self._route.stats.interceptor_failed(text)
        return error_response(500, text, kind=kind, code=code)


def _refusal(status: int, message: str) -> Response:
    return error_response(status, message, kind="proxy_error", code="refused")
