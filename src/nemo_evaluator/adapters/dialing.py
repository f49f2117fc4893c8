"""Opens connections to the endpoint: directly or through an HTTP proxy, with TLS or without."""

from __future__ import annotations

import asyncio
import re
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit

from nemo_evaluator.adapters.client_protocol import ClientConnection
from nemo_evaluator.adapters.resolver import Resolver
from nemo_evaluator.adapters.tls import environment_proxy, tls_context
from nemo_evaluator.adapters.upstream import Upstream

_PORTS = {"http": 80, "https": 443}
_LARGEST_HEAD = 64 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


class TunnelError(OSError):
    """The HTTP proxy makes no connection to the endpoint."""


class Dialer:
    """Opens connections to one endpoint.

    Args:
        upstream: the endpoint.

    Attributes:
        is_absolute: whether requests must name the whole URL, because an HTTP proxy takes them.
        proxy_authorization: what goes with them then; None when the proxy's URL has no user information.

    Raises:
        MisconfigurationError: certificates cannot be loaded, or the environment asks for another kind of proxy.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        target = urlsplit(upstream.origin)
        proxy_url = environment_proxy(upstream)
        proxy = None if proxy_url is None else urlsplit(proxy_url)
        first = target if proxy is None else proxy
        first_host, first_port = _address(first)
        self._resolver = Resolver(first_host, first_port)
        self._tls = tls_context() if "https" in (upstream.scheme, first.scheme) else None
        self._first_tls = self._tls if first.scheme == "https" else None
        self._first_name = None if self._first_tls is None else _server_name(first_host)
        self._is_tunnelled = proxy is not None and upstream.is_tls
        self._proxy_shown = "" if proxy is None else proxy.netloc.rpartition("@")[2]
        authorization = None if proxy is None else _basic(proxy)
        self.is_absolute = proxy is not None and not upstream.is_tls
        self.proxy_authorization = authorization if self.is_absolute else None
        host, port = _address(target)
        self._host = host
        self._connect_head = _connect_head(host, port, authorization)

    async def open(self, make: Callable[[], ClientConnection]) -> ClientConnection:
        """A new connection, for the protocol that `make` makes.

        Raises:
            OSError: it cannot be opened; `ssl.SSLError` when the endpoint's certificate is refused.
        """
        loop = asyncio.get_running_loop()
        connected = await self._resolver.connect()
        tls, name = self._first_tls, self._first_name
        if not self._is_tunnelled:
            _, connection = await loop.create_connection(make, sock=connected, ssl=tls, server_hostname=name)
            return connection
        transport, tunnel = await loop.create_connection(
            lambda: _Tunnel(loop), sock=connected, ssl=tls, server_hostname=name
        )
        try:
            return await self._through(transport, tunnel, make())
        except BaseException:
            transport.abort()
            raise

    async def _through(
        self, transport: asyncio.Transport, tunnel: _Tunnel, connection: ClientConnection
    ) -> ClientConnection:
        transport.write(self._connect_head)
        refusal = await tunnel.refusal
        if refusal is not None:
            raise TunnelError(f"the HTTP proxy {self._proxy_shown} does not connect to {self._host}: {refusal}")
        secured = await asyncio.get_running_loop().start_tls(
            transport, connection, cast("ssl.SSLContext", self._tls), server_hostname=_server_name(self._host)
        )
        if secured is None:
            raise TunnelError(f"the HTTP proxy {self._proxy_shown} closed the connection to {self._host}")
        connection.connection_made(secured)
        return connection


class _Tunnel(asyncio.Protocol):
    """Waits for an HTTP proxy's answer to CONNECT (RFC 9110, 9.3.6)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.refusal: asyncio.Future[str | None] = loop.create_future()
        """Done when the proxy has answered: why it refuses, None when it does not."""
        self._head = bytearray()

    def data_received(self, data: bytes) -> None:
        self._head += data
        end = _END_OF_HEAD.search(self._head)
        if end is None:
            if len(self._head) > _LARGEST_HEAD:
                self._tell("its answer is too large")
            return
        line = _STATUS_LINE.match(self._head)
        if line is None:
            self._tell("its answer is not HTTP/1.1")
        elif line[1].startswith(b"2"):
            # A TLS server waits for the client to speak first.
            self._tell(None if end.end() == len(self._head) else "something else came with its answer")
        else:
            self._tell(line[0].decode("latin-1"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell("it closed the connection" if exc is None else f"{type(exc).__name__}: {exc}")

    def _tell(self, refusal: str | None) -> None:
        if not self.refusal.done():
            self.refusal.set_result(refusal)


def _address(parts: SplitResult) -> tuple[str, int]:
    return parts.hostname or "", parts.port or _PORTS[parts.scheme]


def _connect_head(host: str, port: int, authorization: str | None) -> bytes:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    given = "" if authorization is None else f"Proxy-Authorization: {authorization}\r\n"
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{given}\r\n".encode("latin-1")


def _basic(proxy: SplitResult) -> str | None:
    if proxy.username is None:
        return None
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def _server_name(host: str) -> str:
    """The name that the certificate must have; a dot at the end of a name is no part of it (RFC 6066, 3)."""
    return host.rstrip(".")
