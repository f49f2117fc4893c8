from __future__ import annotations

import gzip
import json
import zlib

import pytest
from multidict import CIMultiDict

from nemo_evaluator.adapters.messages import (
    Decoder,
    Request,
    TooLargeError,
    decode,
    error_response,
    is_json,
)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_packed_bodies_are_unpacked_within_their_limit(pack: object) -> None:
    assert callable(pack)
    packed = pack(b"x" * 1000)
    assert decode(packed, "gzip", limit=1000) == b"x" * 1000
    with pytest.raises(TooLargeError, match="999"):
        decode(packed, "gzip", limit=999)


def test_a_bomb_is_never_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, compresslevel=1)
    with pytest.raises(TooLargeError):
        Decoder("gzip").feed(bomb, limit=1_000_000)


@pytest.mark.parametrize(("body", "coding"), [(b"not gzip", "gzip"), (b"{}", "br"), (b"{}", "gzip, br")])
def test_what_cannot_be_unpacked_is_an_error(body: bytes, coding: str) -> None:
    with pytest.raises(ValueError, match=r"coding|compressed"):
        decode(body, coding, limit=1000)


def test_a_new_body_keeps_large_integers_lone_surrogates_and_the_order_of_keys() -> None:
    body = b'{"z":123456789012345678901234567890,"a":"\\ud800","seed":1.0}'
    request = Request("POST", "http://x/", CIMultiDict(), body)
    request.replace_json(request.json())
    assert request.body == body


def test_numbers_that_json_lacks_are_refused() -> None:
    request = Request("POST", "http://x/", CIMultiDict(), b'{"temperature": NaN}')
    with pytest.raises(ValueError, match="JSON compliant"):
        request.replace_json(request.json())


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/problem+json", True),
        ("text/event-stream", False),
        ("text/plain", False),
        ("", False),
    ],
)
def test_json_is_known_by_its_media_type(content_type: str, expected: bool) -> None:  # noqa: FBT001  a table's column
    assert is_json({"Content-Type": content_type}) is expected


def test_errors_have_the_shape_that_openai_clients_read() -> None:
    response = error_response(502, "no connection", kind="upstream_error", code="connection_failed")
    assert isinstance(response.body, bytes)
    assert (response.status, response.reason) == (502, "Bad Gateway")
    assert json.loads(response.body) == {
        "error": {"message": "no connection", "type": "upstream_error", "param": None, "code": "connection_failed"}
    }
