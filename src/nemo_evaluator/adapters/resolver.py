"""From a host's name to a connected socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import os
import socket
import threading
from collections.abc import Iterable
from time import monotonic
from typing import Any

CACHE_SECONDS = 10.0
"""How long addresses of a name are used; ten thousand connections at once must not ask for it ten thousand times."""

_STAGGER_SECONDS = 0.25
"""Head start of an address before the next one (RFC 8305, 8)."""

_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8))
        if hasattr(socket, name)
    ),
)
"""Seconds and counts by which an endpoint that is gone is noticed: an answer may take an hour without a byte."""

Address = tuple[socket.AddressFamily, Any]
"""A family and an address of it, as `socket.connect` takes it."""


class Resolver:
    """Finds and connects to one host."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._addresses: list[Address] = _numeric(host, port)
        self._expires = float("inf") if self._addresses else 0.0
        self._lookup: asyncio.Future[list[Address]] | None = None

    async def connect(self) -> socket.socket:
        """A connected socket, which does not block.

        Raises:
            OSError: the name has no address, or none of its addresses can be connected to.
        """
        addresses = await self._resolve()
        if len(addresses) == 1:
            return await _connect(addresses[0])
        address, found = await _connect_to_first(addresses)
        # What answered is tried first by the next ones.
        self._addresses.sort(key=lambda other: other != address)
        return found

    async def _resolve(self) -> list[Address]:
        if monotonic() >= self._expires:
            # All who wait share one look-up, which goes on when one of them leaves.
            if self._lookup is None:
                self._lookup = _look_up(self._host, self._port)
                self._lookup.add_done_callback(self._keep)
            return await asyncio.shield(self._lookup)
        return self._addresses

    def _keep(self, lookup: asyncio.Future[list[Address]]) -> None:
        self._lookup = None
        if not lookup.cancelled() and lookup.exception() is None:
            self._addresses = lookup.result()
            self._expires = monotonic() + CACHE_SECONDS


def _numeric(host: str, port: int) -> list[Address]:
    """The address that `host` is; none when it is a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    if "%" in host:  # an interface's name, which only the system can read
        return []
    return [(socket.AF_INET6 if address.version == 6 else socket.AF_INET, (host, port))]  # noqa: PLR2004  IPv6


def _look_up(host: str, port: int) -> asyncio.Future[list[Address]]:
    """Ask the system in a thread that nobody waits for: a dead name server must not hold up the end of a run."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Address]] = loop.create_future()

    def settle(found: list[Address] | OSError) -> None:
        if future.done():
            return
        if isinstance(found, OSError):
            future.set_exception(found)
        else:
            future.set_result(found)

    def ask() -> None:
        found: list[Address] | OSError
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            found = _interleaved((family, address) for family, _, _, _, address in answers)
        except socket.gaierror as error:
            # Of the same kind, by which others see that nothing was sent.
            found = socket.gaierror(error.errno, f"the address of {host!r} cannot be found: {error.strerror}")
        except (OSError, UnicodeError) as error:
            found = OSError(f"the address of {host!r} cannot be found: {error}")
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    return future


def _interleaved(addresses: Iterable[Address]) -> list[Address]:
    """Families in turn, that of the system's first choice first (RFC 8305, 4)."""
    families: dict[socket.AddressFamily, list[Address]] = {}
    for family, address in dict.fromkeys(addresses):
        families.setdefault(family, []).append((family, address))
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


async def _connect(address: Address) -> socket.socket:
    family, target = address
    # With its protocol named, asyncio turns off Nagle's algorithm, which would hold back the end of a request.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setblocking(False)  # noqa: FBT003  the standard library's signature
        for level, option, value in _OPTIONS:
            found.setsockopt(level, option, value)
        if not _is_connected(found, target):
            await asyncio.get_running_loop().sock_connect(found, target)
    except BaseException:
        found.close()
        raise
    return found


def _is_connected(found: socket.socket, target: Any) -> bool:
    """Begin to connect; on loopback that is done at once, without a turn of the event loop."""
    code = found.connect_ex(target)
    if code == errno.EINPROGRESS:
        code = found.connect_ex(target)
    if code in (errno.EINPROGRESS, errno.EALREADY, errno.EINTR):
        return False
    if code not in (0, errno.EISCONN):
        raise OSError(code, f"{os.strerror(code)}: {target[0]} port {target[1]}")
    return True


async def _connect_to_first(addresses: list[Address]) -> tuple[Address, socket.socket]:
    """Try all addresses, each with a head start before the next; the first that answers wins (RFC 8305, 5)."""
    left = list(reversed(addresses))
    tasks: dict[asyncio.Task[socket.socket], Address] = {}
    pending: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while winner is None and (left or pending):
            if left:
                address = left.pop()
                task = asyncio.ensure_future(_connect(address))
                tasks[task] = address
                pending.add(task)
            done, pending = await asyncio.wait(
                pending, timeout=_STAGGER_SECONDS if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            failures = {task: error for task in done if (error := task.exception()) is not None}
            errors.extend(failures.values())
            winner = next((task for task in done if task not in failures), None)
    finally:
        for task in tasks:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_close_late)
    if winner is None:
        raise _together(errors)
    return tasks[winner], winner.result()


def _together(errors: list[BaseException]) -> OSError:
    """One error for all addresses, with the number of the one that says most about the endpoint."""
    numbers = [error.errno for error in errors if isinstance(error, OSError) and error.errno is not None]
    text = "; ".join(dict.fromkeys(str(error) for error in errors))
    return OSError(min(numbers, key=_rank), text) if numbers else OSError(text)


def _rank(number: int) -> int:
    if number in (errno.EMFILE, errno.ENFILE):  # it comes before any address
        return 0
    if number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # this machine lacks the address's family
        return 3
    return 1 if number == errno.ECONNREFUSED else 2


def _close_late(task: asyncio.Task[socket.socket]) -> None:
    """Close a connection that came too late to win."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()
