"""Requests and answers as one line of a log: cut to a stated length, and without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from multidict import CIMultiDict

from nemo_evaluator.adapters.messages import Decoder, Request, TooLargeError
from nemo_evaluator.adapters.redaction import REDACTED, hide_secrets, is_secret_header, redact_url, secrets_of

LONGEST_BODY = 4000
"""Characters of a body that are shown, after media are shortened."""

LOOKED_AT = 1024 * 1024
"""Bytes of a body that are looked at."""

_MEDIA = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}")
_MEDIA_SHOWN = 24
_BREAKS = re.compile(r"\s*[\r\n\u2028\u2029]\s*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def request_line(request: Request) -> str:
    """Which request it is: method, URL, endpoint and, where known, the sample and its own id."""
    known = [request.upstream]
    if request.sample is not None:
        known.append(f"sample {request.sample}")
    if request.id:
        known.append(f"request {request.id}")
    return _one_line(f"{request.method} {redact_url(request.url)} ({', '.join(known)})")


def headers_text(headers: CIMultiDict[str], secrets: set[str]) -> str:
    """All headers as a JSON object; those that hold credentials show `<redacted>`."""
    shown: dict[str, Any] = {}
    for name, value in headers.items():
        text = REDACTED if is_secret_header(name, value) else hide_secrets(value, secrets)
        shown[name] = f"{shown[name]}, {text}" if name in shown else text
    return _one_line(json.dumps(shown, ensure_ascii=False))


def body_text(body: bytes, headers: Mapping[str, str], secrets: set[str], *, size: int | None = None) -> str:
    """A body as text in one line; what is no text is only named, with its size.

    Args:
        body: as on the wire, or its beginning.
        headers: say of what type and coding it is.
        secrets: what must not be shown.
        size: bytes of the whole body, when `body` is only its beginning.
    """
    size = len(body) if size is None else size
    if size == 0:
        return "(empty)"
    text = _text(body[:LOOKED_AT], headers.get("Content-Encoding", ""))
    if text is None:
        return f"({size:,} bytes of {headers.get('Content-Type', 'an unnamed type')})"
    text = hide_secrets(text, secrets)
    is_whole = len(body) >= size <= LOOKED_AT
    if not is_whole:
        # The end may be the beginning of a secret, which is not known by that.
        text = text[: len(text) - max(map(len, secrets), default=0)]
    text = _one_line(_MEDIA.sub(_shortened, text).strip())
    if is_whole and len(text) <= LONGEST_BODY:
        return text
    return f"{text[:LONGEST_BODY]}… ({size:,} bytes in all)"


def secrets_in(request: Request, known: frozenset[str]) -> set[str]:
    """The secrets of a request, sent by the harness or added since, and those `known` of its endpoint."""
    received = secrets_of(request.received_headers.items(), request.url)
    return secrets_of(request.headers.items(), request.url).union(received, known)


def _text(body: bytes, coding: str) -> str | None:
    try:
        unpacked = Decoder(coding or "identity").feed(body, limit=16 * LOOKED_AT)[:LOOKED_AT]
        return _decoded(unpacked)
    except (TooLargeError, ValueError):
        return None


def _decoded(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # A character that the cut goes through is no reason to call the text none.
        if error.start < len(data) - 3:
            raise
        text = data[: error.start].decode()
    if "\0" in text:
        raise ValueError("binary data")
    return text


def _shortened(match: re.Match[str]) -> str:
    return f"{match[0][:_MEDIA_SHOWN]}…({len(match[0]):,} characters)"


def _one_line(text: str) -> str:
    """`text` without line breaks and control characters, so that nobody can write lines of their own into a log."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", _BREAKS.sub(" ", text))
