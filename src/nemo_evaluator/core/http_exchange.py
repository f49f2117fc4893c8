"""Single HTTP requests with a bound on their time, for looking at an endpoint before a run.

The standard library is enough for a handful of requests and is there at once. Redirections are not followed, so that
no key travels to another host.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from nemo_evaluator.adapters.tls import environment_proxy, tls_context
from nemo_evaluator.adapters.upstream import Upstream

MAX_BODY_BYTES = 4 * 1024 * 1024

Trouble = Literal["refused", "unknown_host", "timeout", "certificate", "broken"]


class NoAnswerError(Exception):
    """There was no HTTP answer; `trouble` says at what it failed, the text is for the user."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble: Trouble = trouble


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpClient:
    """Sends requests with the same key, further headers and time limit.

    `timeout` bounds one request as a whole, in seconds: name resolution, connection, TLS, and the last byte. `headers`
    stand in for those of the same name that it would send by itself.
    """

    key: str | None = field(default=None, repr=False)
    timeout: float = 30.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def post(self, url: str, body: Mapping[str, Any]) -> Reply:
        """Send `body` as JSON.

        Raises:
            NoAnswerError: no answer came.
            MisconfigurationError: the URL, the certificates or the proxy of the environment cannot be used.
        """
        return self._exchange("POST", url, json.dumps(body).encode())

    def get(self, url: str) -> Reply:
        """Fetch `url`; errors as `post`."""
        return self._exchange("GET", url, None)

    def _exchange(self, method: str, url: str, body: bytes | None) -> Reply:
        upstream = Upstream(url)
        headers = {"Accept": "application/json", "User-Agent": "nemo-evaluator", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        authorization = f"Bearer {self.key}" if self.key else upstream.basic_authorization
        if authorization:
            headers["Authorization"] = authorization
        given = {name.lower() for name in self.headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in given} | dict(self.headers)
        exchange = _Exchange(upstream, timeout=self.timeout)
        return exchange.run(method, urlsplit(url), headers, body)


class _Exchange:
    """One request in a thread of its own: nothing else bounds name resolution and headers that come drop by drop."""

    def __init__(self, upstream: Upstream, *, timeout: float) -> None:
        self._upstream = upstream
        self._timeout = timeout
        self._connection, self._through_proxy = _connection(upstream, timeout)
        self._connected = False
        self._reply: Reply | None = None
        self._error: Exception | None = None

    def run(self, method: str, url: SplitResult, headers: dict[str, str], body: bytes | None) -> Reply:
        """The answer, or NoAnswerError."""
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if self._through_proxy is not None:
            target = self._upstream.origin + target
            headers = {**headers, **self._through_proxy}
        worker = threading.Thread(target=self._work, args=(method, target, headers, body), daemon=True)
        try:
            worker.start()
        except RuntimeError:
            text = "no thread can be started; look at the limits on processes (ulimit -u, pids.max)"
            raise NoAnswerError("broken", text) from None
        worker.join(self._timeout)
        try:
            if worker.is_alive():
                raise NoAnswerError("timeout", self._timed_out())
            if self._error is not None:
                raise self._explain(self._error) from self._error
            assert self._reply is not None
            return self._reply
        finally:
            self._close()

    def _work(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> None:
        try:
            self._connection.connect()
            self._connected = True
            self._connection.request(method, target, body=body, headers=headers)
            response = self._connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            data = response.read(MAX_BODY_BYTES)
            if response.length and len(data) < MAX_BODY_BYTES:
                # Asked for a number of bytes, the library takes an early end for the end.
                raise http.client.IncompleteRead(data, response.length)
            self._reply = Reply(response.status, received, data)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # AttributeError: http.client's way to say that the connection was closed under its hands, at the time-out.
            self._error = error

    def _close(self) -> None:
        socket_ = self._connection.sock
        if socket_ is not None:
            with contextlib.suppress(OSError):  # the other side may have been quicker
                socket_.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    @property
    def _where(self) -> str:
        port = urlsplit(self._upstream.origin).port or (443 if self._upstream.is_tls else 80)
        return f"{self._upstream.host}:{port}"

    def _timed_out(self) -> str:
        if self._connected:
            return f"{self._where} accepted the connection but did not answer within {self._timeout:g} s"
        return f"no connection to {self._where} within {self._timeout:g} s"

    def _explain(self, error: Exception) -> NoAnswerError:
        where = self._where
        trouble: Trouble
        match error:
            case ConnectionRefusedError():
                trouble, text = "refused", f"nothing listens on {where} (connection refused)"
            case socket.gaierror():
                trouble, text = "unknown_host", f"the host {self._upstream.host!r} is not known ({error.strerror})"
            case ssl.SSLCertVerificationError():
                trouble = "certificate"
                text = f"the certificate of {where} is not trusted: {error.verify_message}; SSL_CERT_FILE names the "
                text += "file with its authority"
            case ssl.SSLError():
                hint = " (is it plain http?)" if error.reason == "WRONG_VERSION_NUMBER" else ""
                trouble, text = "certificate", f"no TLS connection to {where}: {error.reason or error}{hint}"
            case TimeoutError():
                trouble, text = "timeout", self._timed_out()
            case http.client.HTTPException():
                hint = "" if self._upstream.is_tls else " (is it https?)"
                trouble, text = "broken", f"{where} does not answer in HTTP{hint}: {type(error).__name__}"
            case _:
                reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
                trouble, text = "broken", f"the connection to {where} failed: {reason}"
        return NoAnswerError(trouble, text)


def _connection(upstream: Upstream, timeout: float) -> tuple[http.client.HTTPConnection, dict[str, str] | None]:
    """An unopened connection; and when a proxy needs whole URLs, the headers that it wants."""
    parts = urlsplit(upstream.origin)
    host = upstream.host
    proxy_url = environment_proxy(upstream)
    if proxy_url is None:
        if upstream.is_tls:
            return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=tls_context()), None
        return http.client.HTTPConnection(host, parts.port, timeout=timeout), None
    proxy = urlsplit(proxy_url)
    wanted: dict[str, str] = {}
    if proxy.username is not None:
        pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        wanted["Proxy-Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    if upstream.is_tls:
        # A TLS connection within the one to a TLS proxy is beyond http.client; such proxies also speak plain HTTP.
        secure = http.client.HTTPSConnection(
            proxy.hostname or "", proxy.port or 80, timeout=timeout, context=tls_context()
        )
        secure.set_tunnel(host, parts.port or 443, headers=wanted)
        return secure, None
    if proxy.scheme == "https":
        context = tls_context()
        return http.client.HTTPSConnection(proxy.hostname or "", proxy.port, timeout=timeout, context=context), wanted
    return http.client.HTTPConnection(proxy.hostname or "", proxy.port or 80, timeout=timeout), wanted
