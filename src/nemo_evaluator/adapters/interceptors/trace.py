"""`trace`: a record of each request in the store, and OpenTelemetry spans where a collector is configured."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.sample import sample_of
from nemo_evaluator.adapters.span_export import SpanExport, endpoint_of
from nemo_evaluator.adapters.spans import Finished, Place, asked_of, parent_of
from nemo_evaluator.adapters.store.entry import NewEntry
from nemo_evaluator.adapters.store.identity import identify
from nemo_evaluator.adapters.store.observed import Observer
from nemo_evaluator.adapters.store.record import STORE_FILE
from nemo_evaluator.adapters.store.store import Store

_MOST_UNDECIDED = 1024
_NANOSECONDS = 1_000_000_000


class TraceParameters(Parameters):
    """What is recorded, and where spans go.

    Attributes:
        attempts: record each attempt of a request that the proxy repeats, not only the last one.
        otlp_endpoint: the collector: its base URL, such as `http://localhost:4318`, or one that ends with `/v1/traces`.
            Without it `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and `OTEL_EXPORTER_OTLP_ENDPOINT` count.
        capture_content: put the texts of requests and answers into spans.
        propagate: tell the endpoint, by the header `traceparent`, to which span its work belongs.
        provider: the spans' `gen_ai.provider.name`.
        service: the spans' `service.name`.
    """

    attempts: bool = False
    otlp_endpoint: str | None = None
    capture_content: bool = False
    propagate: bool = False
    provider: str = "openai"
    service: str = "nemo-evaluator"


class Trace:
    """Stands nearest to the endpoint, and so sees each attempt.

    A record is made of the last attempt of a request only, unless `attempts` is on. Whether a failed one was the last
    shows when no other follows: it is recorded at the end then. Where `caching` is in the chain it records the last
    ones already. A span is made of each attempt, in the trace of its request.

    Raises:
        MisconfigurationError: spans are asked for, and the collector's URL is wrong, or packages are missing.
    """

    def __init__(self, parameters: TraceParameters, context: Context) -> None:
        self._parameters = parameters
        self._context = context
        self._observer = Observer(context.environ, secrets=context.secrets)
        self._store: Store | None = None
        self._undecided: OrderedDict[str, NewEntry] = OrderedDict()
        self._key = secrets.token_bytes(16)
        url = endpoint_of(parameters.otlp_endpoint, context.environ)
        service = parameters.service
        self._export = context.shared(SpanExport, url, lambda: SpanExport(url, service=service)) if url else None

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Ask on, and tell how it ended."""
        if not request.is_counted:
            return await call_next(request)
        self._decide(request)
        attempt = _Attempt(request, self._place(request), self._end)
        if self._parameters.propagate:
            request.headers["traceparent"] = attempt.place.header
            request.headers.popall("tracestate", None)
        try:
            response = await call_next(request)
        except UpstreamFailure as failure:
            attempt.failed(str(failure), failure.code)
            raise
        except asyncio.CancelledError:
            attempt.failed("the harness left before an answer came", "abandoned")
            raise
        if response.exchange is not None:
            attempt.headers = list(response.headers.items())
            attempt.is_stream = response.is_event_stream
            response.exchange.when_over(attempt.over)
        return response

    async def close(self) -> None:
        """Record the attempts that turned out to be the last ones."""
        while self._undecided:
            _, entry = self._undecided.popitem(last=False)
            self._record_last(entry)

    def _place(self, request: Request) -> Place:
        """All attempts of a request are in one trace: the harness's, or one of their own."""
        span_id = secrets.randbits(64) or 1
        parent = parent_of(request.received_headers.get("traceparent", ""))
        if parent is not None:
            return Place(parent[0], span_id, parent[1])
        digest = blake2b(request.id.encode(), digest_size=16, key=self._key).digest()
        return Place(int.from_bytes(digest, "big") or 1, span_id)

    def _decide(self, request: Request) -> None:
        """An earlier attempt of this request was not its last."""
        earlier = self._undecided.pop(request.id, None)
        if earlier is not None and self._parameters.attempts:
            self._record(earlier)

    def _end(self, attempt: _Attempt, exchange: Exchange | None) -> None:
        """An attempt is over; `exchange` is None when it brought no answer."""
        if self._export is not None:
            self._export.put(self._finished(attempt, exchange))
        request = attempt.request
        if exchange is not None and exchange.is_usable:
            if not self._context.keeps_records:
                self._record(self._entry(attempt, exchange))
        elif self._parameters.attempts or not self._context.keeps_records:
            self._undecided[request.id] = self._entry(attempt, exchange)
            if len(self._undecided) > _MOST_UNDECIDED:
                _, oldest = self._undecided.popitem(last=False)
                self._record_last(oldest)

    def _entry(self, attempt: _Attempt, exchange: Exchange | None) -> NewEntry:
        request, identity = attempt.request, identify(attempt.request)
        if exchange is None:
            entry = self._observer.failed(request, identity, attempt.problem, seconds=attempt.seconds)
        else:
            entry = self._observer.answered(request, identity, exchange, exchange.body, attempt.headers)
        entry.time = attempt.begin / _NANOSECONDS
        return entry

    def _finished(self, attempt: _Attempt, exchange: Exchange | None) -> Finished:
        request, parameters = attempt.request, self._parameters
        coding = next((value for name, value in attempt.headers if name.lower() == "content-encoding"), "")
        failure = attempt.failure
        if exchange is not None and exchange.failure is not None:
            failure = "incomplete_answer"
        return Finished(
            place=attempt.place,
            url=request.url,
            provider=parameters.provider,
            upstream=request.upstream,
            sample=sample_of(request),
            request_id=request.id,
            attempt=request.attempt,
            begin=attempt.begin,
            end=attempt.begin + int(attempt.seconds * _NANOSECONDS),
            first_byte_seconds=exchange.first_byte_seconds if exchange else 0.0,
            status=exchange.status if exchange else 0,
            is_usable=exchange is not None and exchange.is_usable,
            failure=failure,
            is_stream=attempt.is_stream,
            facts=exchange.facts if exchange else AnswerFacts(),
            asked=asked_of(_json(request)),
            request_body=request.body if parameters.capture_content else None,
            response_body=exchange.body if exchange and parameters.capture_content else None,
            coding=coding,
        )

    def _record_last(self, entry: NewEntry) -> None:
        """Record the last attempt of a request, unless somebody else does."""
        if not self._context.keeps_records:
            self._record(entry)

    def _record(self, entry: NewEntry) -> None:
        store = self._store or self._open()
        if store is None:
            return
        entry.identity = None
        context = self._context
        store.add(entry).add_done_callback(lambda done: None if done.result() else context.stats.not_stored())

    def _open(self) -> Store | None:
        """The run's store: the one that `caching` uses, else the one at its usual place."""
        context = self._context
        opened = [found for (kind, _), found in context.shared_objects.items() if kind is Store]
        if opened:
            self._store = opened[0]
        elif context.output_dir is not None:
            path: Path = context.output_dir / "cache" / STORE_FILE
            self._store = context.shared(Store, str(path.absolute()), lambda: Store(path, opens_at_once=False))
        return self._store


class _Attempt:
    """One attempt of a request, from its begin to its end."""

    def __init__(self, request: Request, place: Place, ended: Callable[[_Attempt, Exchange | None], None]) -> None:
        self.request = request
        self.place = place
        self.headers: list[tuple[str, str]] = []
        self.is_stream = False
        self.problem = ""
        self.failure: str | None = None
        self.begin = time.time_ns()
        self.seconds = 0.0
        self._clock = time.monotonic()
        self._ended = ended

    def over(self, exchange: Exchange) -> None:
        """The answer is complete, or will never be."""
        self.seconds = time.monotonic() - self._clock
        self._ended(self, exchange)

    def failed(self, problem: str, code: str) -> None:
        """There is no answer."""
        self.seconds = time.monotonic() - self._clock
        self.problem, self.failure = problem, code
        self._ended(self, None)


def _json(request: Request) -> Any:
    try:
        return request.json()
    except ValueError:
        return None
