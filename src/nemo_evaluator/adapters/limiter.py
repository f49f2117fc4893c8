"""How many exchanges with one origin may be under way, and whose turn is next."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable

from nemo_evaluator.adapters.context import Context

_SLOWEST_PROBING = 32
"""Most round trips between two attempts to go above what the endpoint pushed back at."""

Turn = asyncio.Future[None]


class Limiter:
    """Slots for exchanges with one origin, shared by all chains of a run that lead there.

    Without a limit it only counts. A limit comes from the configuration (`at_most`), from a user (`set_max`), or from
    the endpoint's push-back (`push_back`): then the number of exchanges under way is halved, once per round trip (D.-M.
    Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer Networks",
    1989), and not left above the number that remained when those refused together were gone. Answers raise it again:
    by one each up to half of what was too much, then by one a round trip (slow start and congestion avoidance of RFC
    5681, 3.1). When the same number is found too much again, only the last step is taken back, and tried again after
    twice as many round trips as before.

    Those waiting are served chain by chain in turn, in the order of their arrival within a chain.

    `pause`, `resume` and `set_max` may be called from any thread, and all properties read; the rest belongs to the
    proxy's event loop.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_use = 0
        self._waiting: OrderedDict[str, OrderedDict[Turn, None]] = OrderedDict()
        self._waiting_count = 0
        self._configured: int | None = None
        self._chosen: int | None = None
        self._is_chosen = False
        self._learnt: int | None = None
        self._least = 1
        self._threshold = 0
        self._ceiling: int | None = None
        self._patience = 1
        self._credit = 0
        self._is_paused = False
        self._held_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.epoch = 0
        """Number of reductions so far. Push-back to a request that was sent before the last one is no new evidence."""

    @property
    def in_use(self) -> int:
        """Exchanges under way."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self._waiting_count

    @property
    def limit(self) -> int | None:
        """Most exchanges at the same time; None when there is no limit now."""
        given = self._chosen if self._is_chosen else self._configured
        if self._learnt is None:
            return given
        return self._learnt if given is None else min(given, self._learnt)

    @property
    def is_paused(self) -> bool:
        """Whether a user has paused it."""
        return self._is_paused

    @property
    def held_seconds(self) -> float:
        """For how many seconds more the endpoint wants to be left alone."""
        return max(0.0, self._held_until - time.monotonic())

    def at_most(self, limit: int | None, *, least: int) -> None:
        """Take over what a chain's configuration says; of several chains the stricter limit counts.

        Args:
            limit: most exchanges at the same time; None for any number.
            least: what push-back cannot bring the limit below; of several chains the larger counts.
        """
        if limit is not None:
            self._configured = limit if self._configured is None else min(limit, self._configured)
        self._least = max(self._least, least)

    def pause(self) -> None:
        """Let nobody go until `resume`; what is under way goes on."""
        self._in_loop(lambda: self._set_paused(is_paused=True))

    def resume(self) -> None:
        """Go on after `pause`."""
        self._in_loop(lambda: self._set_paused(is_paused=False))

    def set_max(self, limit: int | None) -> None:
        """Replace the configured limit, and forget what was learnt from push-back.

        Args:
            limit: at least 1; None for no limit.

        Raises:
            ValueError: it is less than 1.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"the limit must be at least 1, not {limit}")
        self._in_loop(lambda: self._choose(limit))

    def try_acquire(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        if self._waiting_count or not self._has_room():
            return False
        self._in_use += 1
        return True

    async def acquire(self, chain: str) -> None:
        """Take a slot for a request of `chain`; waits for it."""
        if self.try_acquire():
            return
        self._loop = asyncio.get_running_loop()
        turn: Turn = self._loop.create_future()
        self._waiting.setdefault(chain, OrderedDict())[turn] = None
        self._waiting_count += 1
        self._set_timer()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            else:
                self._forget(chain, turn)
            raise

    def release(self) -> None:
        """Give a slot back."""
        self._in_use -= 1
        if self._waiting_count:
            self._grant()

    def push_back(self, epoch: int) -> None:
        """The endpoint refused a request that holds a slot, because it has too many.

        Args:
            epoch: value of `epoch` when the request was sent.
        """
        level = self._in_use - 1
        if epoch == self.epoch - 1:
            # Refused together with the one that the last reduction is due to.
            self._reduce_to(level)
        if epoch != self.epoch:
            return
        self.epoch += 1
        if level == self._ceiling:
            self._patience = min(2 * self._patience, _SLOWEST_PROBING)
            self._reduce_to(level)
        else:
            self._ceiling, self._patience = level, 1
            self._threshold = max(self._least, self._in_use // 2)
            self._reduce_to(self._threshold)

    def slow_down(self) -> None:
        """Answers take too long: a fifth less."""
        self.epoch += 1
        self._threshold = max(self._least, self._in_use * 4 // 5)
        self._reduce_to(self._threshold)

    def went_well(self) -> None:
        """An exchange that holds a slot was answered."""
        learnt = self._learnt
        if learnt is None or self._in_use != learnt:
            # Fewer say nothing about the limit; more were sent before it was lowered.
            return
        self._credit += 1
        if self._credit >= self._price(learnt):
            self._credit = 0
            self._learnt = learnt + 1
            if self._ceiling is not None and learnt >= self._ceiling + 1:
                # It bears more than it did.
                self._ceiling, self._patience = None, 1

    def hold(self, seconds: float) -> None:
        """Let nobody go for so many seconds: the endpoint asked for it."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)
        self._set_timer()

    def close(self) -> None:
        """Drop the timer; the run is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _price(self, learnt: int) -> int:
        """How many answers raise the limit by one."""
        if learnt < self._threshold:
            return 1
        if self._ceiling is not None and learnt >= self._ceiling:
            return learnt * self._patience
        return learnt

    def _reduce_to(self, level: int) -> None:
        level = max(level, self._least)
        if self._learnt is None or level < self._learnt:
            self._learnt = level
        self._credit = 0

    def _has_room(self) -> bool:
        if self._is_paused or (self._held_until and not self._is_hold_over()):
            return False
        limit = self.limit
        return limit is None or self._in_use < limit

    def _is_hold_over(self) -> bool:
        if time.monotonic() < self._held_until:
            return False
        self._held_until = 0.0
        return True

    def _grant(self) -> None:
        """Let go whoever may, one of each chain in turn."""
        while self._waiting_count and self._has_room():
            chain, queue = self._waiting.popitem(last=False)
            turn, _ = queue.popitem(last=False)
            if queue:
                self._waiting[chain] = queue
            self._waiting_count -= 1
            if not turn.done():
                self._in_use += 1
                turn.set_result(None)
        self._set_timer()

    def _forget(self, chain: str, turn: Turn) -> None:
        """Take one who left out of the queue."""
        queue = self._waiting.get(chain)
        if queue is not None and turn in queue:
            del queue[turn]
            self._waiting_count -= 1
            if not queue:
                del self._waiting[chain]

    def _set_timer(self) -> None:
        """Wake up when the hold is over, if anybody waits for that."""
        if self._timer is not None or not self._waiting_count or not self._held_until or self._loop is None:
            return
        self._timer = self._loop.call_later(self.held_seconds, self._wake_up)

    def _wake_up(self) -> None:
        self._timer = None
        self._grant()

    def _set_paused(self, *, is_paused: bool) -> None:
        self._is_paused = is_paused
        self._grant()

    def _choose(self, limit: int | None) -> None:
        self._chosen, self._is_chosen = limit, True
        self._learnt = self._ceiling = None
        self._patience = 1
        self.epoch += 1
        self._grant()

    def _in_loop(self, change: Callable[[], None]) -> None:
        """Do it in the event loop; at once when nobody has waited in one yet."""
        if self._loop is None:
            change()
            return
        # A closed loop has nobody who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(change)


def limiter_of(context: Context) -> Limiter:
    """The limiter before the endpoint of `context`, one for all chains of the run that lead to its origin.

    It counts and acts on those requests only that pass the interceptor `concurrency`.
    """
    return context.shared(Limiter, context.upstream.origin, Limiter)
