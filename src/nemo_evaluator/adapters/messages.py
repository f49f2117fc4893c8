"""Requests and responses as they travel through the chain: bytes first, JSON when an interceptor asks for it."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from multidict import CIMultiDict

from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.json_text import exact_json, to_json

if TYPE_CHECKING:
    from nemo_evaluator.adapters.exchange import Exchange

MODEL = "model"
"""The name of the endpoint of the model under test; judges have others."""

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that concern one connection only (RFC 9110, 7.6.1, and the older names of RFC 2616, 13.5.1)."""

DECODABLE = ("gzip", "x-gzip", "deflate", "identity")
"""Content codings that the proxy can read; it asks the endpoint for no other one."""


class TooLargeError(Exception):
    """A body exceeds its limit."""


class BodyStream(Protocol):
    """A body that is still arriving; `aclose` gives its connection back, read to the end or not."""

    @property
    def is_complete(self) -> bool:
        """Whether the reader of what came so far has all of it: it may leave, even if the end is still to come."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the chunks as they come."""
        ...

    async def aclose(self) -> None:
        """Stop reading."""
        ...


class Request:
    """A request of the harness on its way to an endpoint.

    The body is bytes first. `json` reads it once for all interceptors; `replace_json` puts a document in its place,
    which is written as bytes when somebody needs them: several changes cost one serialisation.

    Attributes:
        method: such as `POST`.
        url: where it goes, in full.
        headers: as received, without those that concern one connection; interceptors may change them.
        upstream: the name of the endpoint that it is for: `model`, or that of a judge.
        id: unique within the run.
        sample: which sample of the benchmark it is about, as the harness says (`X-Sample-Id`); None when it does not.
        content_id: what stands for the sample where the harness names none (`sample.sample_of`); None until asked for.
        planned: how many samples the harness means to ask for (`X-Samples-Planned`); None when it does not say.
        attempt: 1, or more when the proxy repeats it.
        streams: the bodies that arrived for it bit by bit, as they came into the chain, the innermost first: they are
            closed when it is over, whatever became of them on the way. None when there were none.
    """

    __slots__ = (
        "_body", "_document", "_is_parsed", "_received", "attempt", "content_id", "headers", "id", "method", "planned",
        "sample", "streams", "upstream", "url",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        url: str,
        headers: CIMultiDict[str],
        body: bytes,
        *,
        upstream: str = MODEL,
        id: str = "",  # noqa: A002  the word for it
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.upstream = upstream
        self.id = id
        self.sample: str | None = None
        self.planned: int | None = None
        self.content_id: str | None = None
        self.attempt = 1
        self.streams: list[BodyStream] | None = None
        self._received = tuple(headers.items())
        self._body: bytes | None = body
        self._document: Any = None
        self._is_parsed = False

    @property
    def body(self) -> bytes:
        """The body as it would be sent now: what the harness sent, byte for byte, unless something replaced it."""
        if self._body is None:
            self._body = to_json(self._document)
        return self._body

    @body.setter
    def body(self, body: bytes) -> None:
        self._body = body
        self._document = None
        self._is_parsed = False

    @property
    def received_headers(self) -> dict[str, str]:
        """The names in lower case of the headers that the harness sent, with their values."""
        return {name.lower(): value for name, value in self._received}

    @property
    def is_counted(self) -> bool:
        """Whether it asks the model something: a POST. Model lists and health checks are not counted."""
        return self.method == "POST"

    def opened(self, body: BodyStream) -> None:
        """A body has begun to arrive that must be closed when the request is over."""
        if self.streams is None:
            self.streams = [body]
        elif self.streams[-1] is not body:
            self.streams.append(body)

    async def close_streams(self) -> None:
        """Close what is still arriving, from the outside in: an interceptor may have dropped it."""
        streams, self.streams = self.streams, None
        for stream in reversed(streams or ()):
            await stream.aclose()

    def json(self) -> Any:
        """The body as JSON; all callers share it: whoever changes it hands it back by `replace_json`.

        Raises:
            ValueError: it is not JSON.
        """
        if not self._is_parsed:
            self._document = exact_json(self.body)
            self._is_parsed = True
        return self._document

    def replace_json(self, document: Any) -> None:
        """Send `document` in place of the body.

        Raises:
            ValueError: it holds a NaN or an infinity.
        """
        self._document = document
        self._is_parsed = True
        self._body = to_json(document)
        self.headers["Content-Type"] = "application/json"


class Response:
    """A response on its way to the harness.

    Attributes:
        status: such as 200.
        headers: those of the endpoint that do not concern one connection; interceptors may change them.
        body: as on the wire, whole or still arriving.
        reason: the phrase after the status.
        limit: most bytes that the body may unpack to.
        exchange: what is known about the exchange that it comes from; None when an interceptor made it up.
    """

    __slots__ = ("body", "exchange", "headers", "limit", "reason", "status")

    def __init__(
        self,
        status: int,
        headers: CIMultiDict[str],
        body: bytes | BodyStream,
        *,
        reason: str = "",
        limit: int = 64 * 1024 * 1024,
        exchange: Exchange | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.reason = reason
        self.limit = limit
        self.exchange = exchange

    @property
    def flaw(self) -> str | None:
        """Why it cannot be used although its status says success; None when it can, or is not complete yet."""
        return None if self.exchange is None else self.exchange.flaw

    @property
    def is_event_stream(self) -> bool:
        """Whether it is a stream of server-sent events."""
        return media_type(self.headers) == "text/event-stream"

    @property
    def is_json(self) -> bool:
        """Whether its headers say that it is JSON."""
        return is_json(self.headers)

    async def read(self) -> bytes:
        """The whole body without its content coding; waits for the end of a stream.

        Raises:
            UpstreamFailure: it is larger than `limit`, or its content coding is unknown or broken.
        """
        return decode_answer(await self.read_raw(), self.headers.get("Content-Encoding", ""), limit=self.limit)

    async def read_raw(self) -> bytes:
        """The whole body as on the wire; waits for the end of a stream."""
        if not isinstance(self.body, bytes):
            stream = self.body
            try:
                self.body = b"".join([chunk async for chunk in stream])
            finally:
                await stream.aclose()
        return self.body

    def replace_body(self, body: bytes) -> None:
        """Answer with `body`, which has no content coding."""
        self.body = body
        self.headers.popall("Content-Encoding", None)
        self.headers.popall("Content-Length", None)

    async def aclose(self) -> None:
        """Give the connection back when the body is still arriving."""
        if not isinstance(self.body, bytes):
            await self.body.aclose()


def error_response(status: int, message: str, *, kind: str, code: str | None = None) -> Response:
    """An error in the shape that OpenAI clients read: `{"error": {message, type, param, code}}`."""
    headers = CIMultiDict({"Content-Type": "application/json"})
    return Response(status, headers, error_body(message, kind=kind, code=code), reason=HTTPStatus(status).phrase)


def error_body(message: str, *, kind: str, code: str | None = None) -> bytes:
    """The body of `error_response`."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()


def media_type(headers: Mapping[str, str]) -> str:
    """The media type without its parameters, in lower case."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def is_json(headers: Mapping[str, str]) -> bool:
    """Whether `headers` announce JSON (RFC 6839 names the `+json` suffix)."""
    kind = media_type(headers)
    return kind == "application/json" or kind.endswith("+json")


def decode(body: bytes, coding: str, *, limit: int) -> bytes:
    """`body` without its content coding.

    Raises:
        TooLargeError: the result is larger than `limit` bytes; no more than that is ever unpacked.
        ValueError: the coding is not one of `DECODABLE`, or the data are broken.
    """
    coding = coding.strip().lower()
    # An answer to HEAD has the coding of a body that it has not.
    if body and coding not in ("", "identity"):
        decoder = Decoder(coding)
        body = decoder.feed(body, limit=limit)
        if not decoder.is_whole:
            raise ValueError("broken compressed body: it ends too early")
    if len(body) > limit:
        raise TooLargeError(f"the body is larger than {limit:,} bytes")
    return body


def decode_answer(body: bytes, coding: str, *, limit: int) -> bytes:
    """As `decode`, for the body of an answer.

    Raises:
        UpstreamFailure: it is larger than `limit` bytes, or its content coding is unknown or broken.
    """
    try:
        return decode(body, coding, limit=limit)
    except TooLargeError as error:
        raise UpstreamFailure(f"the answer is too large: {error}", code="answer_too_large") from error
    except ValueError as error:
        raise UpstreamFailure(f"the answer cannot be read: {error}", code="unreadable_answer") from error


class Decoder:
    """Undoes gzip or deflate piece by piece, within a bound."""

    def __init__(self, coding: str) -> None:
        coding = coding.strip().lower()
        if coding not in DECODABLE:
            raise ValueError(f"unknown content coding {coding!r}")
        # 32 + 15: zlib finds out by itself whether a gzip or a zlib header comes.
        self._inflate = None if coding == "identity" else zlib.decompressobj(32 + zlib.MAX_WBITS)
        self._unpacked = 0

    @property
    def is_whole(self) -> bool:
        """Whether the end of the packed data has come."""
        return self._inflate is None or self._inflate.eof

    def feed(self, data: bytes, *, limit: int) -> bytes:
        """What `data` unpacks to.

        Raises:
            TooLargeError: with all that came before, that is more than `limit` bytes.
            ValueError: the data are broken.
        """
        if self._inflate is None:
            unpacked = data
        else:
            try:
                unpacked = self._inflate.decompress(data, limit - self._unpacked + 1)
            except zlib.error as error:
                raise ValueError(f"broken compressed body: {error}") from error
        self._unpacked += len(unpacked)
        if self._unpacked > limit:
            raise TooLargeError(f"the body unpacks to more than {limit:,} bytes")
        return unpacked
