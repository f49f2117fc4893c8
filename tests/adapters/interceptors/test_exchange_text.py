from __future__ import annotations

import gzip
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_evaluator.adapters.interceptors.exchange_text import LONGEST_BODY, LOOKED_AT, body_text

SECRET = "hunter2-s3cret"


@settings(max_examples=300, deadline=None)
@given(
    body=st.binary(max_size=3000) | st.text(max_size=3000).map(str.encode), coding=st.sampled_from(["", "gzip", "br"])
)
def test_any_body_becomes_one_line(body: bytes, coding: str) -> None:
    text = body_text(body, {"Content-Encoding": coding, "Content-Type": "x/y"}, set())
    assert not [character for character in text if unicodedata.category(character) in ("Cc", "Zl", "Zp")]
    assert len(text) < 4 * LONGEST_BODY + 100


@pytest.mark.parametrize("place", [0, 3990, 3999, LOOKED_AT - 20, LOOKED_AT - 8])
@pytest.mark.parametrize("before", [b".", b"A"])
def test_a_secret_is_hidden_at_every_place_that_is_shown(place: int, before: bytes) -> None:
    # Long runs of one letter are shortened as media are, so the very end is shown.
    body = before * (place - 1) + b" " * (place > 0) + SECRET.encode() + b"." * 5000
    text = body_text(body, {}, {SECRET})
    assert SECRET not in text
    assert SECRET[:6] not in text


def test_packed_bodies_are_read_as_far_as_they_are_looked_at() -> None:
    body = gzip.compress(b'{"a": "' + b"word " * 1000 + b'"}')
    assert body_text(body, {"Content-Encoding": "gzip"}, set()).startswith('{"a": "word word')
    assert body_text(body[:30], {"Content-Encoding": "gzip"}, set(), size=len(body)).endswith(
        f"({len(body):,} bytes in all)"
    )


def test_a_bomb_is_not_unpacked() -> None:
    body = gzip.compress(b"0" * (64 * 1024 * 1024))
    assert body_text(body, {"Content-Encoding": "gzip", "Content-Type": "text/plain"}, set()) == (
        f"({len(body):,} bytes of text/plain)"
    )
