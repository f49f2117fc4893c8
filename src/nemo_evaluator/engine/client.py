"""The HTTP client: one session, a bounded number of connections, retries."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from yarl import URL

from nemo_evaluator.adapters.failures import SHOULD_RETRY
from nemo_evaluator.adapters.sample_header import SAMPLE_HEADER
from nemo_evaluator.adapters.tls import environment_proxy
from nemo_evaluator.adapters.upstream import Upstream
from nemo_evaluator.engine.compression import BodyTooLargeError, UndecodableBodyError, unpack, unpack_start
from nemo_evaluator.engine.descriptors import allow_connections
from nemo_evaluator.engine.protocol import Answer, MalformedAnswerError, ModelType, parse_answer
from nemo_evaluator.engine.retry import Failure, FailureKind, parse_retry_after, pause_before_retry
from nemo_evaluator.errors import UsageError

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
_OK = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where and how to ask."""

    url: str
    """Used exactly as it is, query included."""
    model_type: ModelType
    api_key: str | None = None
    """The key itself; it goes into the `Authorization` header and nowhere else."""

    def parsed(self) -> URL:
        """The URL, its encoding untouched.

        Raises:
            UsageError: not an absolute http or https URL.
        """
        try:
            url = URL(self.url, encoded=True)
            usable = url.scheme in {"http", "https"} and bool(url.host) and url.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UsageError("the endpoint's URL must be absolute and begin with http:// or https://")
        return url


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer and how it was had."""

    answer: Answer
    attempts: int
    latency: float
    """Seconds that the last, good attempt took."""
    request_id: str


class RequestFailedError(Exception):
    """No attempt brought an answer."""

    def __init__(self, failure: Failure, *, attempts: int, request_id: str) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.attempts = attempts
        self.request_id = request_id


class _AttemptFailedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Client:
    """Asks one endpoint. Use as an asynchronous context manager, inside one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        parallelism: int,
        timeout: float,
        max_retries: int,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        planned: int | None = None,
    ) -> None:
        """Prepare; no connection is opened yet.

        Args:
            endpoint: where to ask.
            parallelism: connections at once, at most.
            timeout: seconds that one attempt may take in all.
            max_retries: further attempts after the first one.
            max_answer_bytes: an answer that is longer is given up.
            planned: how many answers the run is to have, earlier starts included; told with each request, as
                `X-Samples-Planned`.

        Raises:
            UsageError: the URL cannot be used, or the system does not allow so many connections.
        """
        self._url = endpoint.parsed()
        self._endpoint = endpoint
        self._parallelism = parallelism
        self._timeout = timeout
        self._max_retries = max_retries
        self._max_answer_bytes = max_answer_bytes
        self._planned = planned
        self._proxy = environment_proxy(Upstream(endpoint.url))
        self._draw = random.Random()  # noqa: S311  spreads retries, keeps no secret
        self._session: aiohttp.ClientSession | None = None
        allow_connections(parallelism)

    @property
    def place(self) -> str:
        """Host and port for messages; paths and queries may hold secrets."""
        return f"the endpoint {self._url.host}:{self._url.port}"

    async def __aenter__(self) -> Self:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Unpacking costs time, and is a way to fill the memory.
            "Accept-Encoding": "identity",
            "User-Agent": "nemo-evaluator",
        }
        if self._endpoint.api_key is not None:
            headers["Authorization"] = f"Bearer {self._endpoint.api_key}"
        if self._planned is not None:
            headers["X-Samples-Planned"] = str(self._planned)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._parallelism),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, body: bytes, *, request_id: str, sample_id: str) -> Reply:
        """Send `body` until there is an answer or no retry is left.

        Args:
            body: JSON.
            request_id: sent as `X-Request-Id`; further attempts add `.2`, `.3` ….
            sample_id: sent as `X-Sample-Id`; printable ASCII.

        Raises:
            RequestFailedError: with the failure of the last attempt.
        """
        attempt = 1
        while True:
            attempt_id = request_id if attempt == 1 else f"{request_id}.{attempt}"
            try:
                started = time.perf_counter()
                answer = await self._attempt(body, {"X-Request-Id": attempt_id, SAMPLE_HEADER: sample_id})
                return Reply(
                    answer=answer,
                    attempts=attempt,
                    latency=time.perf_counter() - started,
                    request_id=attempt_id,
                )
            except _AttemptFailedError as error:
                failure = error.failure
            if not failure.retryable or attempt > self._max_retries:
                raise RequestFailedError(failure, attempts=attempt, request_id=attempt_id)
            await asyncio.sleep(pause_before_retry(attempt, failure, self._draw))
            attempt += 1

    async def _attempt(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        assert self._session is not None, "the client is used outside its context"
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as response:
                if response.status not in _OK:
                    raise await self._refused(response)
                content = await self._read(response)
        except TimeoutError:
            raise self._failed("timeout", f"no answer within {self._timeout:g} s") from None
        except aiohttp.ClientSSLError as error:
            raise self._failed("tls", f"no secure connection: {_first_line(error)}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._failed("connection", f"{type(error).__name__}: {_first_line(error)}") from error
        try:
            encoding = response.headers.get("Content-Encoding", "")
            return parse_answer(unpack(content, encoding, limit=self._max_answer_bytes), self._endpoint.model_type)
        except BodyTooLargeError as error:
            raise self._failed("too_large", str(error)) from error
        except (UndecodableBodyError, MalformedAnswerError) as error:
            raise self._failed("malformed", str(error), is_last=_is_last(response)) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        limit, declared = self._max_answer_bytes, response.content_length
        if declared is not None and declared > limit:
            response.close()
            raise self._failed("too_large", f"the answer has {declared:,} bytes; at most {limit:,} are read")
        chunks: list[bytes] = []
        size = 0
        while chunk := await response.content.readany():
            size += len(chunk)
            if size > limit:
                response.close()
                raise self._failed("too_large", f"the answer is larger than {limit:,} bytes")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _refused(self, response: aiohttp.ClientResponse) -> _AttemptFailedError:
        status = response.status
        if location := response.headers.get("Location") if status in range(300, 400) else None:
            explanation = f"a redirection to {_host_of(location)}, which is not followed: give the final URL"
        else:
            explanation = _explanation(await _read_start(response))
        return self._failed(
            "http",
            f"HTTP {status}: {explanation}",
            status=status,
            retry_after=parse_retry_after(response.headers.get("Retry-After")),
            is_last=_is_last(response),
        )

    def _failed(self, kind: FailureKind, message: str, **more: Any) -> _AttemptFailedError:
        from nemo_evaluator.adapters.redaction import redact_text, secrets_of  # noqa: PLC0415  only failures pay for it

        key = self._endpoint.api_key
        secrets = secrets_of([("Authorization", f"Bearer {key}")] if key else [], self._endpoint.url)
        return _AttemptFailedError(Failure(kind=kind, message=redact_text(message, secrets), **more))


def _is_last(response: aiohttp.ClientResponse) -> bool:
    return response.headers.get(SHOULD_RETRY, "").strip().lower() == "false"


async def _read_start(response: aiohttp.ClientResponse) -> bytes:
    """The body of a refusal as far as it comes; the status says enough when it does not."""
    body = b""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        while len(body) < MAX_ERROR_BYTES and (chunk := await response.content.readany()):
            body += chunk
    return unpack_start(body, response.headers.get("Content-Encoding", ""), limit=MAX_ERROR_BYTES)


def _explanation(body: bytes) -> str:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        error = document.get("error", document.get("detail", document.get("message")))
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str) and message:
            return " ".join(message.split())
    return " ".join(body.decode("utf-8", "replace").split()) or "no explanation"


def _host_of(location: str) -> str:
    try:
        return URL(location).host or "another path"
    except ValueError:
        return "an unreadable place"


def _first_line(error: BaseException) -> str:
    # The text of these errors ends with the URL, whose query may hold a key.
    told = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    lines = told.strip().splitlines()
    return lines[0] if lines else "no further reason given"
