"""Certificates are checked; an HTTP proxy of the environment is used, but never for loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest
import trustme
from aiohttp import web
from tests.adapters.conftest import Client, Serve
from tests.conftest import Certificates

from nemo_evaluator.adapters.proxy import Upstream, running_proxy
from nemo_evaluator.adapters.tls import environment_proxy, tls_context
from nemo_evaluator.errors import MisconfigurationError

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXY_VARIABLES, *map(str.upper, PROXY_VARIABLES), "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tls_port(certificates: Certificates) -> Iterator[int]:
    """A server for `localhost` and 127.0.0.1 whose certificate nobody knows; it answers each connection once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.chain)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_all, args=(listener, context))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _answer_all(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            plain, _ = listener.accept()
        except OSError:
            return
        with closing(plain):
            plain.settimeout(10)
            try:
                with context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(65536)
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
                    )
            except (OSError, ssl.SSLError):
                # A client that refuses the certificate ends the handshake.
                continue


def test_an_unknown_certificate_is_refused_with_the_reason(tls_port: int, client: Client) -> None:
    with running_proxy(Upstream(f"https://127.0.0.1:{tls_port}/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url)
    assert reply.status == 502
    assert "certificate" in reply.json()["error"]["message"].lower()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_that_the_environment_trusts_is_accepted(
    *,
    tls_port: int,
    client: Client,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    host: str,
) -> None:
    monkeypatch.setenv(variable, str(certificates.authority))
    with running_proxy(Upstream(f"https://{host}:{tls_port}/v1/chat/completions")) as proxy:
        assert client.post(proxy.url).status == 200


def test_a_certificate_for_another_host_is_refused(
    tls_port: int, client: Client, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    with running_proxy(Upstream(f"https://127.0.0.2:{tls_port}/v1/chat/completions")) as proxy:
        reply = client.post(proxy.url)
    assert reply.status == 502


def test_plain_http_on_a_tls_port_is_a_502(serve: Serve, client: Client) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({})

    url = serve(answer).replace("http://", "https://")
    with running_proxy(Upstream(f"{url}/v1/chat/completions")) as proxy:
        assert client.post(proxy.url).status == 502


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "/no/such/bundle.pem")
    with pytest.raises(MisconfigurationError, match=f"{variable}: .*/no/such/bundle.pem"):
        tls_context()


def test_a_folder_of_certificates_may_be_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert tls_context().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({}, "http://model.example/v1", None),
        ({"http_proxy": "http://proxy.example:3128"}, "http://model.example/v1", "http://proxy.example:3128"),
        ({"HTTP_PROXY": "proxy.example:3128"}, "http://model.example/v1", "http://proxy.example:3128"),
        ({"http_proxy": "http://proxy.example:3128"}, "https://model.example/v1", None),
        ({"ALL_PROXY": "http://proxy.example:3128"}, "https://model.example/v1", "http://proxy.example:3128"),
        ({"http_proxy": "http://p:1", "no_proxy": "model.example"}, "http://model.example/v1", None),
        ({"http_proxy": "http://p:1", "no_proxy": ".example"}, "http://model.example/v1", None),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "http://model.example/v1", None),
        ({"http_proxy": "http://p:1"}, "http://localhost:8000/v1", None),
        ({"http_proxy": "http://p:1"}, "http://127.0.0.1:8000/v1", None),
        ({"http_proxy": "http://p:1"}, "http://127.8.9.10/v1", None),
        ({"http_proxy": "http://p:1"}, "http://[::1]:8000/v1", None),
    ],
)
def test_which_proxy_stands_before_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, expected: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(Upstream(url)) == expected


def test_a_proxy_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:hunter2@proxy.example:1080")
    with pytest.raises(MisconfigurationError, match="socks5") as caught:
        environment_proxy(Upstream("https://model.example/v1"))
    assert "hunter2" not in str(caught.value)


def test_requests_go_through_the_environments_proxy(
    serve: Serve, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        seen.append(str(request.raw_path))
        return web.json_response({})

    monkeypatch.setenv("http_proxy", serve(forward))
    with running_proxy(Upstream("http://model.invalid/v1/chat/completions")) as proxy:
        assert client.post(proxy.url).status == 200
    assert seen == ["http://model.invalid/v1/chat/completions"]


class ConnectProxy:
    """An HTTP proxy that makes tunnels to one port, whatever name is asked for; over TLS when it has a context."""

    def __init__(
        self, port: int, *, answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n", tls: ssl.SSLContext | None = None
    ) -> None:
        self.heads: list[bytes] = []
        self._target = port
        self._answer = answer
        self._tls = tls
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answer)
        if b" 200 " in self._answer:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(_pass_on(reader, ours), _pass_on(theirs, writer))
        else:
            writer.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        ready, stop = threading.Event(), asyncio.Event()
        loops: list[asyncio.AbstractEventLoop] = []

        async def run() -> None:
            async with await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls) as server:
                self.port = server.sockets[0].getsockname()[1]
                loops.append(asyncio.get_running_loop())
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loops[0].call_soon_threadsafe(stop.set)
            thread.join(10)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@pytest.fixture
def served_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """A server with a certificate for `model.invalid`, which the environment trusts, as it does `localhost`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    names = authority.issue_cert("model.invalid", "localhost")
    names.private_key_and_cert_chain_pem.write_to_path(tmp_path / "chain.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_all, args=(listener, context))
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_tls_goes_through_a_tunnel_of_the_environments_proxy(
    served_name: int, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str
) -> None:
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(tmp_path / "chain.pem")
    with ConnectProxy(served_name, tls=own if scheme == "https" else None).running() as tunnels:
        monkeypatch.setenv("https_proxy", f"{scheme}://us%40er:pass@localhost:{tunnels.port}")
        with running_proxy(Upstream("https://model.invalid:8443/v1/chat/completions")) as proxy:
            reply = client.post(proxy.url, headers={"Proxy-Authorization": "Basic nobody"})
    assert (reply.status, reply.body) == (200, b"{}")
    (head,) = tunnels.heads
    assert head.split(b"\r\n") == [
        b"CONNECT model.invalid:8443 HTTP/1.1",
        b"Host: model.invalid:8443",
        b"Proxy-Authorization: Basic dXNAZXI6cGFzcw==",
        b"",
        b"",
    ]


def test_through_a_tunnel_the_endpoints_own_name_is_checked(
    served_name: int, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy(served_name).running() as tunnels:
        monkeypatch.setenv("https_proxy", f"http://localhost:{tunnels.port}")
        with running_proxy(Upstream("https://other.invalid/v1/chat/completions")) as proxy:
            reply = client.post(proxy.url)
    assert reply.status == 502
    assert "certificate" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            "407 Proxy Authentication Required",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "something else came"),
        (b"SSH-2.0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 403", "closed the connection"),
        (b"x" * 70_000, "too large"),
    ],
)
def test_a_proxy_that_makes_no_tunnel_is_named(
    client: Client, monkeypatch: pytest.MonkeyPatch, answer: bytes, reason: str
) -> None:
    with ConnectProxy(9, answer=answer.replace(b" 200 ", b" 299 ")).running() as tunnels:
        monkeypatch.setenv("https_proxy", f"http://user:hunter2@localhost:{tunnels.port}")
        with running_proxy(Upstream("https://model.invalid/v1/chat/completions")) as proxy:
            reply = client.post(proxy.url)
    message = reply.json()["error"]["message"]
    assert (reply.status, reply.json()["error"]["code"]) == (502, "connection_failed")
    assert f"the HTTP proxy localhost:{tunnels.port} does not connect to model.invalid: " in message
    assert reason in message
    assert "hunter2" not in message


def test_plain_requests_carry_the_proxys_credentials(
    serve: Serve, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    async def forward(request: web.Request) -> web.Response:
        seen.extend((request.headers.get("Proxy-Authorization"), request.headers["Host"]))
        return web.json_response({})

    monkeypatch.setenv("http_proxy", serve(forward).replace("http://", "http://user:pass@"))
    with running_proxy(Upstream("http://model.invalid/v1/chat/completions")) as proxy:
        assert client.post(proxy.url).status == 200
    assert seen == ["Basic dXNlcjpwYXNz", "model.invalid"]


@pytest.mark.parametrize("value", ["http://", "http://p:port", "http://p:0", "http://[::1"])
def test_a_proxy_that_cannot_be_read_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("http_proxy", value)
    with pytest.raises(MisconfigurationError, match="HTTP_PROXY or ALL_PROXY must be like"):
        environment_proxy(Upstream("http://model.example/v1"))
