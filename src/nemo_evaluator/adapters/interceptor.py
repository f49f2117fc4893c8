"""The contract of an interceptor.

An interceptor wraps the next one: it gets the request, may change it, calls `call_next` (once, several times, or not at
all: answering by itself is the short circuit), may change the response, and returns it. The order is that of the list.
An exception fails that request, visibly: the harness gets a 500 whose JSON names the interceptor, and nothing goes on
unmodified. Whoever calls `call_next` owns the response, and closes it when returning another one.

A response may still be arriving when `call_next` returns it. An interceptor that needs its text waits for it
(`await response.read()`) or wraps `response.body`; one that only wants to know how it ended asks its exchange
(`response.exchange.when_over`), which holds nothing back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.messages import Request, Response

CallNext = Callable[[Request], Awaitable[Response]]


class Interceptor(Protocol):
    """One link of the chain. An instance serves all requests of a run, many of them at the same time."""

    async def __call__(self, request: Request, call_next: CallNext, /) -> Response:
        """Answer `request`, usually with what `call_next(request)` returns."""
        ...


@runtime_checkable
class Closes(Protocol):
    """An interceptor that has something left to do when the run is over; it has a few seconds for it."""

    async def close(self) -> None:
        """Finish; no request is under way any more."""
        ...


@dataclass(frozen=True, slots=True)
class NamedInterceptor:
    """An interceptor together with the name that errors call it by."""

    name: str
    interceptor: Interceptor


class InterceptorFailure(Exception):  # noqa: N818  the word of the contract: the interceptor failed, the request fails
    """An interceptor raised; the request is answered with an error that names it."""

    def __init__(self, name: str, cause: Exception) -> None:
        super().__init__(f"interceptor {name!r} failed: {type(cause).__name__}: {cause}")
        self.name = name


def compose(interceptors: Sequence[NamedInterceptor], endpoint: CallNext) -> CallNext:
    """The chain as one function: the first interceptor is the outermost, `endpoint` the innermost."""
    chain = endpoint
    for link in reversed(interceptors):
        chain = _wrap(link, chain)
    return chain


def _wrap(link: NamedInterceptor, call_next: CallNext) -> CallNext:
    async def call(request: Request) -> Response:
        try:
            return await link.interceptor(request, call_next)
        except (InterceptorFailure, UpstreamFailure):
            raise
        except Exception as error:  # whatever goes wrong in an interceptor fails its request, and says which one it was
            raise InterceptorFailure(link.name, error) from error

    return call
