"""What the store keeps about one exchange, and how records are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STORE_FILE = "requests.db"
"""Name of the store's file, in the folder of the run or in `caching_dir`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One exchange with an endpoint, without its texts.

    Attributes:
        id: number of the record; grows with time.
        start: which start of the run made it, counted from 1.
        time: when the request was sent, in seconds since the epoch.
        upstream: name of the endpoint, such as `model`.
        address: its origin and path, without user information and query.
        request_id: id of the harness's request; repetitions by the proxy share it.
        attempt: 1, or more for repetitions by the proxy.
        sample: which sample of the benchmark it is about: as the harness says, else `content:` and a hash.
        status: what the endpoint said; 0 when no answer came.
        is_usable: whether it is an answer of success that has what such an answer must have, and may be replayed.
        problem: why it is not usable; None when it is.
        source: `store` for a record that an answer was given again.
        seconds: from sending the request to the last byte.
        first_byte_seconds: from sending the request to the first byte of the answer's body.
        prompt_tokens: None when the endpoint did not report it; likewise the other numbers of tokens.
        cost: in the currency of the price table; None without one.
        finish_reason: of the first choice that has one.
        request_bytes: size of the request's body.
        response_bytes: size of the answer's body, as on the wire.
    """

    id: int
    start: int
    time: float
    upstream: str
    address: str
    request_id: str
    attempt: int
    sample: str
    status: int
    is_usable: bool
    problem: str | None
    source: Literal["endpoint", "store"]
    seconds: float
    first_byte_seconds: float
    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None
    cost: float | None
    finish_reason: str | None
    request_bytes: int
    response_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The texts of one exchange, unpacked.

    Attributes:
        request: the body that the endpoint was sent.
        response: the body that it answered with, without its content coding.
        response_headers: its headers, without those that may hold secrets.
    """

    request: bytes
    response: bytes
    response_headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which records are meant; None stands for any.

    Attributes:
        sample: of this sample.
        upstream: of this endpoint.
        status: with this status.
        usable: usable ones, or those that are not.
        finish_reason: with this one.
        start: of this start of the run.
        starts: of these starts.
        text: that have this text in request or answer, whatever its case.
        after: with a greater id.
    """

    sample: str | None = None
    upstream: str | None = None
    status: int | None = None
    usable: bool | None = None
    finish_reason: str | None = None
    start: int | None = None
    starts: tuple[int, ...] | None = None
    text: str | None = None
    after: int | None = None
