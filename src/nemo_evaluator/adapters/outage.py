"""While an endpoint is away, one request at a time finds out whether it is back; the others wait."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Literal

from nemo_evaluator.adapters.backoff import Backoff
from nemo_evaluator.adapters.context import Context, Ends

SHORTEST_PROBE_GAP = 0.5
_RAMP_GAP = 0.1
_FAILURES_IN_A_ROW = 3
_REQUESTS_IN_A_ROW = 2
_SECONDS_IN_A_ROW = 1.0
_FORGOTTEN_AFTER = 60.0

State = Literal["open", "shut", "opening"]


class OutageGate:
    """Before one origin, for all chains of a run. Used in the proxy's event loop only.

    It shuts when no connection can be made, or when for a second the endpoint does nothing but break off connections
    or answer 502 or 503, to different requests: one request that its endpoint cannot bear is no outage. While it is
    shut, requests queue; the first of them is let through as a probe, the next one after a growing pause when that
    failed, or after the longest pause when it is still under way. Any other answer opens the gate, and those waiting
    are let go in growing groups. When it has been shut for too long, the run is ended.

    Args:
        origin: the endpoint, as messages call it.
        ends: how a run is ended.
    """

    def __init__(self, origin: str, ends: Ends) -> None:
        self._origin = origin
        self._ends = ends
        self._seconds = 0.0
        self._longest_gap = SHORTEST_PROBE_GAP
        self._state: State = "open"
        self._failures = 0
        self._askers: set[object] = set()
        self._waiting: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self._backoff = Backoff(SHORTEST_PROBE_GAP, SHORTEST_PROBE_GAP)
        self._reason = ""
        self._since = 0.0
        self._first_failure = 0.0
        self._last_failure = 0.0
        self._next_probe = 0.0
        self._group = 1
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def configure(self, seconds: float, *, longest_gap: float) -> None:
        """Set how long an outage may last and how far apart probes may be, in seconds.

        Of several chains that share the gate the most patient counts.
        """
        self._seconds = max(self._seconds, seconds)
        self._longest_gap = max(self._longest_gap, longest_gap)

    @property
    def must_wait(self) -> bool:
        """Whether a request has to `wait` before it may be sent."""
        return self._state != "open"

    @property
    def is_shut(self) -> bool:
        """Whether the endpoint counts as away."""
        return self._state == "shut"

    @property
    def is_troubled(self) -> bool:
        """Whether `answered` has something to do."""
        return self._failures > 0 or self._state != "open"

    @property
    def waiting(self) -> int:
        """How many requests wait here."""
        return len(self._waiting)

    async def wait(self) -> bool:
        """Wait for the endpoint; returns whether the request is a probe, and also when the run has been ended."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting[turn] = None
        if self._state == "shut":
            self._expect(loop)
        try:
            probes: bool = await turn
        finally:
            self._waiting.pop(turn, None)
        return probes

    def failed(self, asker: object, reason: str, *, is_certain: bool, is_probe: bool) -> None:
        """An exchange ended in a way that an outage may explain.

        Args:
            asker: stands for the request.
            reason: what happened, without secrets.
            is_certain: no connection could be made: one failure is enough.
            is_probe: what `wait` returned.
        """
        now = asyncio.get_running_loop().time()
        self._last_failure, self._reason = now, reason
        if self._state == "shut":
            if is_probe:
                self._next_probe = now + self._backoff.next()
                self._schedule()
            return
        if not self._failures:
            self._first_failure = now
        self._failures += 1
        if len(self._askers) < _REQUESTS_IN_A_ROW:
            self._askers.add(asker)
        is_row = self._failures >= _FAILURES_IN_A_ROW and len(self._askers) >= _REQUESTS_IN_A_ROW
        if is_certain or (is_row and now - self._first_failure >= _SECONDS_IN_A_ROW):
            self._shut(now)

    def answered(self) -> None:
        """The endpoint answered something that only it can say."""
        self._failures = 0
        self._askers.clear()
        if self._state != "shut":
            return
        self._state = "opening"
        self._group = 1
        _cancel(self._deadline)
        self._deadline = None
        self._let_group_go()

    def close(self) -> None:
        """Drop the timers; the run is over."""
        _cancel(self._timer)
        _cancel(self._deadline)
        self._timer = self._deadline = None

    def _shut(self, now: float) -> None:
        self._state = "shut"
        self._since = now
        self._backoff = Backoff(SHORTEST_PROBE_GAP, self._longest_gap)
        self._next_probe = now + self._backoff.next()
        self._schedule()

    def _expect(self, loop: asyncio.AbstractEventLoop) -> None:
        """A request came to the shut gate."""
        now = loop.time()
        # When nobody asked for long, nobody knows how long it has been away.
        if len(self._waiting) == 1 and now - self._last_failure > max(_FORGOTTEN_AFTER, 2 * self._longest_gap):
            self._since = now
        if self._timer is None:
            self._schedule()
        if self._deadline is None:
            self._deadline = loop.call_at(max(now, self._since + self._seconds), self._give_up)

    def _schedule(self) -> None:
        """Let the next probe go when its time has come, if anybody is there."""
        _cancel(self._timer)
        self._timer = None
        if self._waiting:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._next_probe), self._let_probe_go)

    def _let_probe_go(self) -> None:
        self._timer = None
        if self._let_go(is_probe=True):
            self._next_probe = asyncio.get_running_loop().time() + self._longest_gap
            self._schedule()

    def _let_group_go(self) -> None:
        """Those waiting go in groups of 1, 2, 4, …, so that an endpoint that just came up is not run over."""
        _cancel(self._timer)
        self._timer = None
        for _ in range(self._group):
            self._let_go(is_probe=False)
        self._group *= 2
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(_RAMP_GAP, self._let_group_go)
        else:
            self._state = "open"

    def _let_go(self, *, is_probe: bool) -> bool:
        """Let the first one waiting go; False when there is none."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(is_probe)
                return True
        return False

    def _give_up(self) -> None:
        self._deadline = None
        if not self._waiting:
            return
        seconds = asyncio.get_running_loop().time() - self._since
        self._ends.end(
            f"the endpoint {self._origin} has been unreachable for {seconds:.0f} s ({self._reason}). What was answered "
            "is kept: start the same command again, when the endpoint is back, to go on.",
            "outage",
            status=503,
        )
        while self._let_go(is_probe=False):
            pass


def outage_gate_of(context: Context) -> OutageGate:
    """The gate before the endpoint of `context`, one for all chains of the run that lead to its origin."""
    origin = context.upstream.origin
    return context.shared(OutageGate, origin, lambda: OutageGate(origin, context.ends))


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
