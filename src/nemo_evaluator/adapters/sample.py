"""Which sample of the benchmark a request is about."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from nemo_evaluator.adapters.json_text import to_json
from nemo_evaluator.adapters.messages import Request

CONTENT_PREFIX = "content:"
"""How the id of a sample begins that the harness did not name."""

_ID_BYTES = 8
_END = b"\x00"
"""Stands after each text, so that texts cut in different places are different."""


def sample_of(request: Request) -> str:
    """The id of the sample that `request` is about.

    It is what the harness says (`X-Sample-Id`). Where it says nothing it is `content:` and 16 hexadecimal digits of
    BLAKE2b over what the user asks: the texts and other parts of all user messages of a conversation, `prompt` of a
    text completion, `input` of an embedding or of the Responses API. So it is the same for any model, system message,
    sampling parameter and seed, and for each repetition of the question. The first look counts: an interceptor that
    changes the question later does not make it another sample.
    """
    if request.sample:
        return request.sample
    if request.content_id is None:
        request.content_id = _of_content(request)
    return request.content_id


def _of_content(request: Request) -> str:
    try:
        document = request.json()
    except ValueError:
        document = None
    digest = blake2b(digest_size=_ID_BYTES)
    if isinstance(document, dict):
        _take_request(digest, document)
    else:
        digest.update(request.body)
    return f"{CONTENT_PREFIX}{digest.hexdigest()}"


def is_named(sample: str) -> bool:
    """Whether the harness gave the sample its id."""
    return not sample.startswith(CONTENT_PREFIX)


def _take_request(digest: blake2b, document: dict[str, Any]) -> None:
    messages = document.get("messages")
    if isinstance(messages, list):
        _take_messages(digest, messages)
        return
    asked = document.get("prompt", document.get("input"))
    if isinstance(asked, list) and any(isinstance(item, dict) and "role" in item for item in asked):
        _take_messages(digest, asked)
    else:
        _take(digest, asked)


def _take_messages(digest: blake2b, messages: list[Any]) -> None:
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "user":
            _take(digest, message.get("content"))


def _take(digest: blake2b, content: Any) -> None:
    """Take in text, the same whether it stands alone or as the only part, and anything else as JSON."""
    if isinstance(content, str):
        digest.update(content.encode(errors="surrogatepass"))
        digest.update(_END)
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, dict) else None
            _take(digest, text if isinstance(text, str) else part)
    elif content is not None:
        digest.update(_json(content))
        digest.update(_END)


def _json(content: Any) -> bytes:
    try:
        return to_json(content)
    except ValueError:  # a NaN has no form in JSON
        return repr(content).encode(errors="surrogatepass")
