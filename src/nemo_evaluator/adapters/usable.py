"""Whether what came with a status of success is an answer at all."""

from __future__ import annotations

import json
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

Expected = Literal["choices", "data", "object"]
"""What an answer must have: a list of this name that is not empty, or no more than the shape of a JSON object."""

_LISTS: tuple[tuple[str, Expected], ...] = (
    ("/chat/completions", "choices"),
    ("/completions", "choices"),
    ("/embeddings", "data"),
)
_SHOWN = 120


def expected_of(url: str) -> Expected:
    """What an answer from `url` must have, by the end of its path; little is asked of kinds that are not known."""
    path = urlsplit(url).path.rstrip("/")
    return next((expected for suffix, expected in _LISTS if path.endswith(suffix)), "object")


def parse_json(body: bytes) -> Any:
    """`body` as JSON, the way most clients read it: NaN, lone surrogates and a byte order mark are let pass.

    Raises:
        ValueError: it is not JSON, or nested beyond reading.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            return json.loads(body)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error


def flaw_of_body(body: bytes, expected: Expected) -> str | None:
    """Why a whole body is no answer; None when it is one."""
    if not body.strip():
        return "the body is empty"
    try:
        document = parse_json(body)
    except ValueError:
        return f"the body is not JSON, it begins with {body[:_SHOWN].decode(errors='replace')!r}"
    return flaw_of_document(document, body, expected)


def flaw_of_document(document: Any, body: bytes, expected: Expected) -> str | None:
    """As `flaw_of_body`, where the body was parsed already."""
    if not isinstance(document, dict):
        return f"the body is no JSON object, it begins with {body[:_SHOWN].decode(errors='replace')!r}"
    if holds_error(document):
        return f"the body is an error: {error_message(document)}"
    if expected != "object" and not holds_list(document, expected):
        return f"the body has no {expected!r}"
    return None


def holds_error(document: Any) -> bool:
    """Whether an answer or an event says that something went wrong; some servers send an empty `error` always."""
    return isinstance(document, dict) and document.get("error") not in (None, False, "")


def holds_list(document: dict[str, Any], name: str) -> bool:
    """Whether `document` has a list of this name with objects in it."""
    found = document.get(name)
    return isinstance(found, list) and any(isinstance(item, dict) for item in found)


def error_message(document: Any) -> str:
    """The message of an error in one of the common shapes, else all of it."""
    error = document.get("error", document) if isinstance(document, dict) else document
    message = error.get("message") if isinstance(error, dict) else error
    return str(message if message is not None else error)
