"""Pausing and limiting the requests of a run while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import NamedInterceptor
from nemo_evaluator.adapters.interceptors.concurrency import Concurrency, ConcurrencyParameters
from nemo_evaluator.adapters.limiter import limiter_of
from nemo_evaluator.errors import UsageError
from nemo_evaluator.suggest import did_you_mean

_CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointLimit:
    """The state of one endpoint's limiter at a moment; endpoints of one origin share theirs.

    Attributes:
        limit: most exchanges at once at present; None when nothing limits them.
        in_use: exchanges under way.
        waiting: requests that wait for their turn.
        paused: whether no further exchange begins.
    """

    limit: int | None
    in_use: int
    waiting: int
    paused: bool


def steerable(transport: Sequence[NamedInterceptor], context: Context) -> list[NamedInterceptor]:
    """The links of the transport stage, and a limiter without a limit where the configuration has none."""
    if any(link.name == _CONCURRENCY for link in transport):
        return list(transport)
    unlimited = Concurrency(ConcurrencyParameters(adaptive=False), context)
    return [*transport, NamedInterceptor(_CONCURRENCY, unlimited)]


class Steering:
    """Acts on the limiters of a run; all methods may be called from any thread."""

    def __init__(self, contexts: Mapping[str, Context]) -> None:
        self._limiters = {name: limiter_of(context) for name, context in contexts.items()}

    def pause(self) -> None:
        """Begin no further exchange with any endpoint; those under way end."""
        for limiter in self._limiters.values():
            limiter.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        for limiter in self._limiters.values():
            limiter.resume()

    def set_concurrency(self, limit: int | None, upstream: str | None = None) -> None:
        """Replace the limit on exchanges at once.

        Args:
            limit: at least 1; None for no limit.
            upstream: the endpoint's name; None for each of them.

        Raises:
            UsageError: there is no endpoint of that name.
        """
        if upstream is not None and upstream not in self._limiters:
            raise UsageError(
                f"there is no endpoint {upstream!r}.{did_you_mean(upstream, self._limiters)} "
                f"Known: {', '.join(self._limiters)}"
            )
        for name, limiter in self._limiters.items():
            if upstream in (None, name):
                limiter.set_max(limit)

    def limits(self) -> dict[str, EndpointLimit]:
        """The limiters' state by the endpoint's name."""
        return {
            name: EndpointLimit(
                limit=limiter.limit, in_use=limiter.in_use, waiting=limiter.waiting, paused=limiter.is_paused
            )
            for name, limiter in self._limiters.items()
        }
