"""What makes two requests the same: everything that changes the answer, and never a key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from nemo_evaluator.adapters.messages import Request
from nemo_evaluator.adapters.redaction import Secret, is_credential_name

KEY_BYTES = 16
_HIDDEN = b"value of a header"

_PORTS = {"http": 80, "https": 443}
_MAY_NOT_BE_FINITE = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}")
_CHANGES_ANSWERS = re.compile(r"openai-|anthropic-|(?:.*[-_])?api[-_]version$")
# What stands here says nothing about the answer, or is new each time.
_NEUTRAL = frozenset(
    {
        "accept", "accept-encoding", "accept-language", "baggage", "connection", "content-length", "content-type",
        "date", "expect", "host", "idempotency-key", "origin", "referer", "traceparent", "tracestate", "user-agent",
        "x-correlation-id", "x-request-id", "x-sample-id", "x-samples-planned",
    }
)  # fmt: skip


# Not frozen: that would cost half a microsecond each time.
@dataclass(slots=True)
class Identity:
    """The keys of a request; BLAKE2b (RFC 7693) of 16 bytes each.

    Attributes:
        key: equal for equal requests.
        loose: the same without the value of `seed`; equal to `key` when the request has no seed.
        seed: its seed, when that is a number.
        address: origin and path of the endpoint, safe to show.
    """

    key: bytes
    loose: bytes
    seed: int | None
    address: str

    @property
    def has_seed(self) -> bool:
        """Whether the request has a seed."""
        return self.key != self.loose


def identify(request: Request) -> Identity:
    """The identity of `request` as it would be sent now.

    It covers the method, the endpoint's name in the run, the path and the query (without credential-like parameters),
    the body (JSON whatever the order of its keys and its blanks; anything else byte for byte), headers that choose the
    interface (`openai-*`, `anthropic-*`, `*api-version`), and headers that the configuration added or changed; of those
    whose values are hidden elsewhere, a digest of the value. Headers that are credentials by their name are never part.
    The origin is none either: an endpoint that comes back on another machine or port is the same. Where entries may be
    of another endpoint, in stores that runs share, it is compared apart (see `shelf.Wanted`).
    """
    address, path, query = _address(request.url)
    digest = blake2b(digest_size=KEY_BYTES)
    place = f"{request.method} {request.upstream}\n{path}?{query}\n{_headers(request)}\n"
    digest.update(place.encode(errors="surrogatepass"))
    body, seed = _body(request)
    digest.update(body)
    if seed is None:
        key = digest.digest()
        return Identity(key, key, None, address)
    digest.update(b"\nseed")
    loose = digest.digest()
    digest.update(_canonical(seed, b""))
    number = seed if isinstance(seed, int) and not isinstance(seed, bool) and abs(seed) < 2**63 else None
    return Identity(digest.digest(), loose, number, address)


def _body(request: Request) -> tuple[bytes, Any]:
    """The canonical body without its seed, and the seed."""
    try:
        document = request.json()
    except ValueError:
        return b"bytes\n" + request.body, None
    seed = None
    if isinstance(document, dict):
        seed = document.get("seed")
        if seed is not None:
            document = {name: value for name, value in document.items() if name != "seed"}
    try:
        return _canonical(document, request.body), seed
    except (RecursionError, ValueError, TypeError):
        return b"bytes\n" + request.body, None


def _canonical(document: Any, text: bytes) -> bytes:
    try:
        canonical = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # numbers beyond 64 bits, lone surrogates
        return _slowly(document)
    # orjson writes NaN and infinities as null.
    if b"null" in canonical and _MAY_NOT_BE_FINITE.search(text) and not _is_finite(document):
        return _slowly(document)
    return canonical


def _is_finite(document: Any) -> bool:
    try:
        json.dumps(document, allow_nan=False)
    except ValueError:
        return False
    return True


def _slowly(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _headers(request: Request) -> str:
    received = request.received_headers
    found = []
    for name, value in request.headers.items():
        kind = _kind(name)
        if kind is None:
            continue
        lower, counts_always = kind
        if counts_always or received.get(lower) != value:
            found.append(f"{lower}:{_shown(value)}")
    if len(found) > 1:
        found.sort()
    return "\n".join(found)


def _shown(value: str) -> str:
    """`value`, or a digest of one that is hidden elsewhere: another tenant or stage must not get the same answers."""
    if not isinstance(value, Secret):
        return value
    return blake2b(value.encode(errors="surrogatepass"), digest_size=KEY_BYTES, key=_HIDDEN).hexdigest()


def may_change_answers(header: str) -> bool:
    """Whether a header that the configuration adds counts: it is no credential by its name, and says something."""
    return _kind(header) is not None


@lru_cache(maxsize=1024)
def _kind(name: str) -> tuple[str, bool] | None:
    """The name in lower case, and whether the header counts even when the harness sent it; None when it never does."""
    lower = name.lower()
    if lower in _NEUTRAL or is_credential_name(lower):
        return None
    return lower, _CHANGES_ANSWERS.match(lower) is not None


@lru_cache(maxsize=1024)
def _address(url: str) -> tuple[str, str, str]:
    """Origin and path without user information, the path, and the query without credentials."""
    parts = urlsplit(url)
    pairs = [
        pair for pair in parts.query.split("&") if pair and not is_credential_name(unquote(pair.partition("=")[0]))
    ]
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return address, parts.path, "&".join(pairs)


@lru_cache(maxsize=1024)
def origin_of(address: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address, in a form that can be compared; those of no address equal no other's."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "", address, None
    return parts.scheme, parts.hostname or address, port or _PORTS.get(parts.scheme)
