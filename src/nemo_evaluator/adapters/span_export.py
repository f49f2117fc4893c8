"""Sends spans over OTLP/HTTP from a thread of its own, so that no answer ever waits for a collector."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nemo_evaluator.adapters.redaction import hide_secrets, redact_url, secrets_of
from nemo_evaluator.adapters.spans import Finished, attributes_of, error_of, name_of
from nemo_evaluator.errors import MisconfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

_log = logging.getLogger(__name__)

_TRACES_PATH = "/v1/traces"
_MOST_WAITING = 8192
_BATCH = 512
_BATCH_SECONDS = 1.0
_EXPORT_SECONDS = 5.0
_CLOSE_SECONDS = 2.5
_SCOPE = "nemo_evaluator"
_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "urllib3.connectionpool")


def endpoint_of(given: str | None, environ: Mapping[str, str]) -> str | None:
    """The collector's full URL; None when none is configured.

    Args:
        given: the parameter `otlp_endpoint`: a base, or a URL that ends with `/v1/traces`.
        environ: has OpenTelemetry's own variables, which count second.

    Raises:
        MisconfigurationError: it is no http(s) URL, or the packages for it are not installed.
    """
    traces = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    base = given or (None if traces else environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
    if base is None and not traces:
        return None
    url = traces or ""
    if base is not None:
        parts = urlsplit(base)
        path = parts.path.rstrip("/")
        # Some collectors take their key as a query, which stays at the end.
        url = parts._replace(path=path if path.endswith(_TRACES_PATH) else path + _TRACES_PATH).geturl()
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise MisconfigurationError("trace: otlp_endpoint must be an http(s) URL, such as http://localhost:4318")
    if not _is_installed():
        raise MisconfigurationError(
            "trace: spans need the OpenTelemetry packages; install them: pip install 'nemo-evaluator[otel]'"
        )
    return url


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


class _Hiding(logging.Filter):
    """Hides the secrets of a URL in what the exporter and its transport log, which name the URL in full."""

    def __init__(self, url: str) -> None:
        super().__init__()
        shown = redact_url(url)
        self._secrets = secrets_of((), url)
        self._replaced = [(url, shown), (_target(url), _target(shown))]

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        for full, shown in self._replaced:
            text = text.replace(full, shown)
        record.msg, record.args = hide_secrets(text, self._secrets), None
        # A traceback would have the URL again.
        record.exc_info = record.exc_text = None
        return True


def _target(url: str) -> str:
    """What of a URL a request line has."""
    parts = urlsplit(url)
    return parts._replace(scheme="", netloc="").geturl()


class SpanExport:
    """Takes what is over, and sends it in batches; what comes too fast or is not accepted is dropped, and counted.

    Args:
        url: the collector's full URL.
        service: the name of the service, in the resource of all spans.
    """

    def __init__(self, url: str, *, service: str) -> None:
        self._url = url
        self._service = service
        self._waiting: queue.Queue[Finished | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """Spans that reached nobody."""
        self.sent = 0
        """Spans that the collector accepted."""

    def put(self, finished: Finished) -> None:
        """Send a span for it, some time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(finished)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        if self._thread is not None:
            try:
                self._waiting.put(None, timeout=_CLOSE_SECONDS)
                self._thread.join(_CLOSE_SECONDS)
            except queue.Full:
                pass
            if self._thread.is_alive():
                self.dropped += self._waiting.qsize()
            self._thread = None
        if self.dropped:
            _log.warning("%d spans were not exported to %s", self.dropped, redact_url(self._url))
            self.dropped = 0

    def _run(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  0.3 s that only this thread pays
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  as above

        resource = Resource.create({"service.name": self._service})
        exporter = OTLPSpanExporter(endpoint=self._url, timeout=_EXPORT_SECONDS)
        hiding = _Hiding(self._url)
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(hiding)
        try:
            is_last = False
            while not is_last:
                batch, is_last = self._batch()
                if batch:
                    self._export(exporter, [_span(finished, resource) for finished in batch])
        finally:
            for name in _LOGGERS:
                logging.getLogger(name).removeFilter(hiding)
            exporter.shutdown()  # type: ignore[no-untyped-call]  # theirs has no annotation

    def _batch(self) -> tuple[list[Finished], bool]:
        """What waits now, after the first of it came; and whether that was all."""
        batch: list[Finished] = []
        first = self._waiting.get()
        end = time.monotonic() + _BATCH_SECONDS
        while first is not None:
            batch.append(first)
            left = end - time.monotonic()
            if len(batch) >= _BATCH or left <= 0:
                return batch, False
            try:
                first = self._waiting.get(timeout=left)
            except queue.Empty:
                return batch, False
        return batch, True

    def _export(self, exporter: SpanExporter, spans: list[ReadableSpan]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415  loaded already

        try:
            is_sent = exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001  the exporter's transport raises what it likes; the run goes on
            _log.debug("spans were not exported: %s", type(error).__name__)
            is_sent = False
        if is_sent:
            self.sent += len(spans)
        else:
            self.dropped += len(spans)


def _span(finished: Finished, resource: Resource) -> ReadableSpan:
    from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415  loaded already
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415  loaded already
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags  # noqa: PLC0415  loaded already
    from opentelemetry.trace.status import Status, StatusCode  # noqa: PLC0415  loaded already

    place = finished.place
    flags = TraceFlags(TraceFlags.SAMPLED)
    failed = error_of(finished) is not None
    return ReadableSpan(
        name_of(finished),
        context=SpanContext(place.trace_id, place.span_id, is_remote=False, trace_flags=flags),
        parent=None
        if place.parent_id is None
        else SpanContext(place.trace_id, place.parent_id, is_remote=True, trace_flags=flags),
        resource=resource,
        attributes=attributes_of(finished),
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=finished.begin,
        end_time=finished.end,
        instrumentation_scope=InstrumentationScope(_SCOPE, version("nemo-evaluator")),
    )
