"""How the texts of one exchange are packed, and how damage to them is noticed."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, fields
from functools import cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import orjson
import zstandard

from nemo_evaluator.adapters.facts import AnswerFacts

LARGEST = 900 * 1024 * 1024
"""Bytes that one packed row may have: SQLite refuses more than a billion."""

# Texts that most exchanges have in common. Files refer to it: it may never change; a second one would need a new
# version of the format.
DICTIONARY = (
    b'{"h":[["Content-Type","text/event-stream; charset=utf-8"],["Cache-Control","no-cache"],["Server","uvicorn"],'
    b'["X-Request-Id",""],["Content-Type","application/json"]],"f":{"finish_reasons":["stop"],"choices":1,"has_text":true}}'
    b'{"model":"","stream":true,"stream_options":{"include_usage":true},"seed":,"stop":null,"n":1,"top_p":1.0,'
    b'"temperature":0.0,"max_tokens":1024,"max_completion_tokens":,"messages":[{"role":"system","content":"You are a '
    b'helpful assistant."},{"role": "user", "content": "Answer the question. Think step by step. The last line is: '
    b'\'Answer: \'\\n\\nA) \\nB) \\nC) \\nD) \\n"}], "temperature": 0.0, "max_tokens": '
    b'data: {"id":"chatcmpl-","object":"chat.completion.chunk","created":17,"model":"","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
    b'{"id": "chatcmpl-", "object": "chat.completion", "created": 17, "model": "", "choices": [{"index": 0, '
    b'"message": {"role": "assistant", "content": "The answer is ", "refusal": null, "reasoning_content": null, '
    b'"tool_calls": []}, "logprobs": null, "finish_reason": "stop", "stop_reason": null}], "usage": {'
    b'"prompt_tokens": , "completion_tokens": , "total_tokens": , "prompt_tokens_details": null}}'
    b'{"id":"chatcmpl-","object":"chat.completion","created":17,"model":"","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"","reasoning_content":null,"tool_calls":[]},"logprobs":null,"finish_reason":"stop",'
    b'"stop_reason":null}],"usage":{"prompt_tokens":,"total_tokens":,"completion_tokens":,'
    b'"prompt_tokens_details":null},"prompt_logprobs":null}'
)

_LEVEL = 1
_SIZES = struct.Struct("<II")
_SUM_BYTES = 8
_NO_FACTS = AnswerFacts()
_VALUES = attrgetter(*(one.name for one in fields(AnswerFacts)))
_DEFAULTS = {one.name: getattr(_NO_FACTS, one.name) for one in fields(AnswerFacts)}


@dataclass(frozen=True, slots=True)
class Told:
    """How an exchange that brought nothing usable ended for the harness.

    Attributes:
        status: that it was told.
        code: of the proxy's error, when the endpoint's answer did not come or broke off; empty for a whole answer.
        message: of the proxy's error; for a whole answer what is wrong with it, if that is not its status.
        is_last_attempt: whether the proxy had repeated the request.
    """

    status: int
    code: str = ""
    message: str = ""
    is_last_attempt: bool = False


# Not frozen: that would cost half a microsecond each time.
@dataclass(slots=True, kw_only=True)
class Content:
    """What a row holds beside its columns.

    Attributes:
        headers: of the answer.
        facts: about the answer.
        request: body of the request; empty when it is not kept.
        response: body of the answer as on the wire; empty when it is not kept.
        told: how it ended for the harness; None when the answer is usable, or nobody waited for it.
    """

    headers: list[tuple[str, str]]
    facts: AnswerFacts
    request: bytes
    response: bytes
    told: Told | None = None


class Packer:
    """Packs and unpacks; one instance serves one thread at a time."""

    def __init__(self) -> None:
        dictionary = _dictionary()
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=dictionary)
        self._decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)

    def pack(self, content: Content) -> bytes:
        """`content` as bytes.

        Raises:
            ValueError: it is too large for one row.
        """
        said = {
            name: value
            for (name, default), value in zip(_DEFAULTS.items(), _VALUES(content.facts), strict=True)
            if value != default
        }
        told = content.told
        end = {} if told is None else {"t": [told.status, told.code, told.message, told.is_last_attempt]}
        head = _written({"h": content.headers, "f": said, **end})
        sizes = _SIZES.pack(len(head), len(content.request))
        packed: bytes = self._compressor.compress(b"".join((sizes, head, content.request, content.response)))
        if len(packed) > LARGEST:
            raise ValueError(f"the exchange packs to {len(packed):,} bytes, more than a row may have")
        return packed

    def unpack(self, packed: bytes) -> Content:
        """The content of a row whose checksum is right.

        Raises:
            ValueError: it was not packed by `pack`.
        """
        try:
            data: bytes = self._decompressor.decompress(packed)
            head_size, request_size = _SIZES.unpack_from(data)
            head = json.loads(data[_SIZES.size : _SIZES.size + head_size])
            headers = [(str(name), str(value)) for name, value in head["h"]]
            # Facts of a later version are passed over.
            facts = AnswerFacts(**{name: value for name, value in head["f"].items() if name in _DEFAULTS})
            told = Told(*head["t"]) if "t" in head else None
        except (zstandard.ZstdError, struct.error, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"not a packed exchange: {error}") from error
        start = _SIZES.size + head_size
        return Content(
            headers=headers,
            facts=facts,
            request=data[start : start + request_size],
            response=data[start + request_size :],
            told=told,
        )


def checksum(key: bytes | None, loose: bytes | None, status: int, packed: bytes) -> bytes:
    """Eight bytes that say whether a row is what was written: its keys, status and content."""
    digest = blake2b(b"%b|%b|%d|" % (key or b"", loose or b"", status), digest_size=_SUM_BYTES)
    digest.update(packed)
    return digest.digest()


def _written(head: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(head)
    except TypeError:  # bytes of headers that are no text, numbers beyond 64 bits
        return json.dumps(head, default=str).encode()


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    dictionary = zstandard.ZstdCompressionDict(DICTIONARY, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    dictionary.precompute_compress(level=_LEVEL)
    return dictionary
