"""From names to connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.adapters.exchanges import fetch, upstream

from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.repeatable import kind_of_failure
from nemo_evaluator.adapters.resolver import Resolver


class Names:
    """A name service: what `getaddrinfo` says, and how often it was asked."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked = 0

    def __call__(self, _host: str, port: int, **_options: Any) -> list[Any]:
        self.asked += 1
        families = [(socket.AF_INET6 if ":" in host else socket.AF_INET, host) for host in self.hosts]
        return [(family, socket.SOCK_STREAM, 6, "", (host, port)) for family, host in families]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as server:
        yield server


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


async def peers(resolver: Resolver, count: int = 1) -> list[str]:
    found = await asyncio.gather(*[resolver.connect() for _ in range(count)])
    try:
        return [connection.getpeername()[0] for connection in found]
    finally:
        for connection in found:
            connection.close()


def test_an_address_is_connected_to_without_asking_anybody(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    names = Names("127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", names)
    assert asyncio.run(peers(Resolver("127.0.0.1", port_of(listener)))) == ["127.0.0.1"]
    assert names.asked == 0


def test_a_name_is_asked_for_once_however_many_connections_want_it(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    names = Names("127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", names)

    async def connect() -> None:
        resolver = Resolver("model.example", port_of(listener))
        assert await peers(resolver, 200) == ["127.0.0.1"] * 200
        assert await peers(resolver) == ["127.0.0.1"]

    asyncio.run(connect())
    assert names.asked == 1


def test_an_address_that_refuses_is_passed_over(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names("127.0.0.9", "127.0.0.8", "127.0.0.1"))
    assert asyncio.run(peers(Resolver("model.example", port_of(listener)), 3)) == ["127.0.0.1"] * 3


def test_an_address_that_says_nothing_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        mute = stack.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003  the standard library's signature
            waiting.connect_ex(mute.getsockname())
        stack.enter_context(socket.create_server(("127.0.0.1", port_of(mute))))
        monkeypatch.setattr(socket, "getaddrinfo", Names("127.0.0.2", "127.0.0.1"))
        assert asyncio.run(asyncio.wait_for(peers(Resolver("model.example", port_of(mute))), 20)) == ["127.0.0.1"]


def test_all_reasons_are_told_when_no_address_can_be_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = port_of(unused)
    monkeypatch.setattr(socket, "getaddrinfo", Names("127.0.0.3", "127.0.0.4"))
    with pytest.raises(OSError, match=r"(?s)refused: 127\.0\.0\.3.*refused: 127\.0\.0\.4"):
        asyncio.run(peers(Resolver("model.example", port)))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64 + ".example"])
def test_a_name_without_an_address_is_named(host: str) -> None:
    with pytest.raises(OSError, match=f"the address of {host!r} cannot be found"):
        asyncio.run(peers(Resolver(host, 80)))


def test_a_name_service_that_never_answers_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_arguments: Any, **_options: Any) -> list[Any]:
        release.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peers(Resolver("model.example", 80)), 0.05)

    # `asyncio.run` waits for the threads of its executor.
    asyncio.run(give_up())
    assert not release.is_set()
    release.set()


@pytest.mark.parametrize("hosts", [("127.0.0.3",), ("127.0.0.3", "127.0.0.4"), ("2001:db8::1%no", "127.0.0.4"), ()])
def test_an_endpoint_that_cannot_be_connected_to_is_known_as_unreachable(
    monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = port_of(unused)
    if hosts:
        monkeypatch.setattr(socket, "getaddrinfo", Names(*hosts))
    with pytest.raises(UpstreamFailure) as caught:
        fetch(upstream(f"http://no-such-host.invalid:{port}"))
    assert kind_of_failure(caught.value) == "unreachable"
