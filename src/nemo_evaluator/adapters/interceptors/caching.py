"""`caching`: keeps every request and answer, and gives answers of earlier starts again."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from multidict import CIMultiDict
from pydantic import Field

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response, error_response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.store.borrowed import BorrowedShelf, find_store
from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.identity import Identity, identify
from nemo_evaluator.adapters.store.observed import Observer
from nemo_evaluator.adapters.store.packing import Told
from nemo_evaluator.adapters.store.record import STORE_FILE
from nemo_evaluator.adapters.store.shelf import Found, Seeds, Shelf, Wanted
from nemo_evaluator.adapters.store.store import Store
from nemo_evaluator.adapters.store.stored_stream import BrokenStream, StoredStream
from nemo_evaluator.errors import DataError, MisconfigurationError

_log = logging.getLogger(__name__)

Count = Annotated[int, Field(ge=0)]

COMPATIBLE_DEFAULT = "/tmp"  # noqa: S108  the default of the compatible interface; nothing is written there
"""The `cache_dir` that stands for the folder `cache` of the run."""


class CachingParameters(Parameters):
    """Keeps requests and answers in one file, and gives answers of earlier starts again.

    `cache_dir` is the folder of the file. With `reuse_cached_responses` every exchange is kept whole, and the n-th
    equal request of a start gets the n-th answer that earlier starts kept. Without it the texts of answers
    (`save_responses`) and of requests (`save_requests`) are kept for looking at, the first `max_saved_…` of them.
    `seed_cache_dir` names stores of other runs, whose answers are given when this run's own store has none. `seeds`
    says whether a request with another `seed` is another request: `exact` yes, `ignore` no, `auto` yes unless the
    harness draws new seeds at each start.
    """

    cache_dir: str = COMPATIBLE_DEFAULT
    reuse_cached_responses: bool = False
    save_requests: bool = False
    save_responses: bool = True
    max_saved_requests: Count | None = None
    max_saved_responses: Count | None = None
    seed_cache_dir: str | tuple[str, ...] | None = None
    seeds: Seeds = "auto"

    @property
    def seed_stores(self) -> tuple[Path, ...]:
        """The files that `seed_cache_dir` means.

        Raises:
            MisconfigurationError: there is none at one of the places.
        """
        given = self.seed_cache_dir
        places = (given,) if isinstance(given, str) else given or ()
        return tuple(find_store(place) for place in places)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where answers are taken from; `identifier` is None for the run's own store."""

    shelf: Shelf
    identifier: str | None = None


class Caching:
    """Answers from the store where it can, else asks on and keeps what comes.

    An answer reaches the harness after it is stored, so that no crash makes an answer unknown that the harness has
    seen. Only answers that are usable are given again; the others are kept for looking at.

    Raises:
        MisconfigurationError: there is no folder for the store, or no store at one of the places to be read.
    """

    def __init__(self, parameters: CachingParameters, context: Context) -> None:
        self._parameters = parameters
        self._context = context
        self._observer = Observer(context.environ, secrets=context.secrets)
        self._path = store_file(parameters, context.output_dir)
        self._store: Store | None = None
        self._saved_requests = 0
        self._saved_responses = 0
        self._is_broken = False
        path = self._path
        if not context.replay_only:
            self._store = context.shared(Store, str(path.absolute()), lambda: Store(path))
        self._sources = _sources(parameters, context, path, self._store)

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Answer `request` from the store, or by `call_next`."""
        if not request.is_counted:
            return _no_replay(request) if self._store is None else await call_next(request)
        identity = identify(request)
        if self._store is not None and self._store.is_repaired_now:
            await self._store.readable()
        for source in self._sources:
            found = self._find(source, identity)
            if found is not None:
                return await self._again(request, identity, found, source)
        if self._store is None:
            return self._missed(request, identity)
        return await self._ask(request, identity, call_next, self._store)

    def _find(self, source: _Source, identity: Identity) -> Found | None:
        try:
            return source.shelf.find(identity)
        except sqlite3.Error as error:
            if not self._is_broken:
                self._is_broken = True
                _log.warning("an answer in %s cannot be read, and is asked for again: %s", self._path, error)
            return None

    async def _again(self, request: Request, identity: Identity, found: Found, source: _Source) -> Response:
        told = found.content.told
        failure = None
        if told is not None and told.code:
            failure = UpstreamFailure(told.message, code=told.code, status=told.status)
            failure.is_last_attempt = told.is_last_attempt
            if not found.status:
                raise failure
        exchange = Exchange(
            found.status,
            flaw=told.message or None if told is not None and failure is None else None,
            failure=str(failure) if failure else None,
            source="store",
            facts=found.content.facts,
            seconds=found.seconds,
            first_byte_seconds=found.first_byte_seconds,
            sent=found.request_bytes,
            received=found.response_bytes,
            body=found.content.response,
            cost=found.cost,
            is_over=True,
        )
        self._context.stats.cached()
        if self._store is not None and source.identifier is not None:
            # So the run's own store is complete, and its next start does not take the same entry twice.
            entry = self._observer.answered(request, identity, exchange, exchange.body, found.content.headers)
            entry.origin = f"{source.identifier}:{found.id}"
            await self._put(self._store, entry)
        return Response(
            found.status,
            CIMultiDict(found.content.headers),
            exchange.body if failure is None else BrokenStream(exchange.body, failure),
            reason=_phrase(found.status),
            limit=self._context.upstream.max_response_bytes,
            exchange=exchange,
        )

    async def _ask(self, request: Request, identity: Identity, call_next: CallNext, store: Store) -> Response:
        now, clock = time.time(), time.monotonic()
        try:
            response = await call_next(request)
        except UpstreamFailure as failure:
            seconds = time.monotonic() - clock
            entry = self._observer.failed(request, identity, str(failure), seconds=seconds)
            entry.told = Told(failure.status, failure.code, str(failure), failure.is_last_attempt)
            await self._put(store, entry, now)
            raise
        except asyncio.CancelledError:
            seconds = time.monotonic() - clock
            problem = "the harness left before an answer came"
            store.add(self._limited(self._observer.failed(request, identity, problem, seconds=seconds), now))
            raise
        exchange = response.exchange
        if exchange is None:
            # An interceptor's own answer, which no endpoint gave.
            return response
        headers = list(response.headers.items())
        if isinstance(response.body, bytes):
            await self._put(store, self._observer.answered(request, identity, exchange, response.body, headers), now)
            return response

        def entry_of(body: bytes) -> NewEntry:
            return self._limited(self._observer.answered(request, identity, exchange, body, headers), now)

        coding = response.headers.get("Content-Encoding", "identity")
        response.body = StoredStream(response.body, exchange, entry_of, store, self._context, coding)
        return response

    async def _put(self, store: Store, entry: NewEntry, now: float | None = None) -> None:
        if not await store.put(self._limited(entry, time.time() if now is None else now)):
            self._context.stats.not_stored()

    def _limited(self, entry: NewEntry, now: float) -> NewEntry:
        """`entry` with its time, and without the texts that are not to be kept."""
        entry.time = now
        parameters = self._parameters
        if not parameters.reuse_cached_responses:
            most = parameters.max_saved_requests
            if not parameters.save_requests or (most is not None and self._saved_requests >= most):
                entry.request = None
            most = parameters.max_saved_responses
            if not parameters.save_responses or (most is not None and self._saved_responses >= most):
                entry.response = None
            self._saved_requests += entry.request is not None
            self._saved_responses += entry.response is not None
        return entry

    def _missed(self, request: Request, identity: Identity) -> Response:
        sample = f", sample {request.sample}" if request.sample else ""
        message = (
            f"replay: {self._path} has no answer that is not given yet to {request.method} {identity.address} "
            f"(endpoint {request.upstream!r}{sample}); the request differs from those of the run, or was never answered"
        )
        self._context.ends.end(message, "store", status=HTTPStatus.NOT_FOUND)
        return error_response(HTTPStatus.NOT_FOUND, message, kind="replay_error", code="not_in_store")


def store_file(parameters: CachingParameters, output_dir: Path | None) -> Path:
    """The file of the store.

    Args:
        parameters: of the interceptor.
        output_dir: the folder of the run.

    Raises:
        MisconfigurationError: there is no folder for it.
    """
    if parameters.cache_dir != COMPATIBLE_DEFAULT:
        return Path(parameters.cache_dir) / STORE_FILE
    if output_dir is None:
        raise MisconfigurationError("caching: the run has no output folder; give cache_dir")
    return output_dir / "cache" / STORE_FILE


def _sources(parameters: CachingParameters, context: Context, path: Path, store: Store | None) -> Sequence[_Source]:
    """Where answers are taken from, the run's own store first."""
    found: list[_Source] = []
    # In a store that other runs use, too, the endpoint of the same name may be another.
    shared = Wanted(
        upstream=context.name, origin=context.upstream.origin, seeds=parameters.seeds, is_replay=store is None
    )
    own = replace(shared, origin=None) if _is_within(path, context.output_dir) else shared
    if store is None:
        found.append(_Source(_borrowed(context, path, own).shelf()))
    elif parameters.reuse_cached_responses:
        shelf = store.shelf(own)
        if shelf:
            found.append(_Source(shelf))
    for file in parameters.seed_stores:
        borrowed = _borrowed(context, file, shared)
        taken = frozenset() if store is None else store.copied_from(borrowed.identifier)
        found.append(_Source(borrowed.shelf(taken), borrowed.identifier))
    return found


def _is_within(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.resolve().is_relative_to(folder.resolve())


def _borrowed(context: Context, path: Path, wanted: Wanted) -> BorrowedShelf:
    try:
        return context.shared(BorrowedShelf, f"{path.absolute()} {wanted}", lambda: BorrowedShelf(path, wanted))
    except DataError as error:
        raise MisconfigurationError(f"caching: {error}") from error


def _no_replay(request: Request) -> Response:
    message = f"replay: a {request.method} request is not answered from a store, and the endpoint is not asked"
    return error_response(HTTPStatus.NOT_FOUND, message, kind="replay_error", code="not_in_store")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
