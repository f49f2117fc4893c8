"""How often the interpreter looks for reference cycles while a proxy serves."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

YOUNG = 200_000
"""Objects that may be made before a search. With thousands of requests outstanding every search walks through all that
belongs to them, and the interpreter's own 700 doubled the cost of a request; the proxy makes no cycles itself."""

_lock = threading.Lock()
_users = 0
_former: tuple[int, int, int] | None = None


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """While this lasts, in any thread, cycles are searched for less often; several users may overlap.

    A process that has set its own, higher threshold, or none at all, keeps it.
    """
    global _users, _former  # noqa: PLW0603  the threshold is the process's, so its users are counted for the process
    with _lock:
        _users += 1
        if _users == 1 and 0 < gc.get_threshold()[0] < YOUNG:
            _former = gc.get_threshold()
            gc.set_threshold(YOUNG, *_former[1:])
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _former is not None:
                gc.set_threshold(*_former)
                _former = None
