from __future__ import annotations

import gzip
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.store.packing import DICTIONARY, Content, Packer, checksum

PACKER = Packer()


@given(request=st.binary(), response=st.binary(), header=st.text(), tokens=st.none() | st.integers(0, 10**12))
def test_what_is_packed_comes_back(request: bytes, response: bytes, header: str, tokens: int | None) -> None:
    facts = AnswerFacts(prompt_tokens=tokens, finish_reasons=["stop", "length"], tool_calls=2)
    content = Content(headers=[("X", header)], facts=facts, request=request, response=response)
    assert PACKER.unpack(PACKER.pack(content)) == content


@given(data=st.binary())
def test_what_was_not_packed_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a packed exchange"):
        PACKER.unpack(data)


def test_the_checksum_covers_keys_status_and_content() -> None:
    sums = {
        checksum(key, loose, status, packed)
        for key in (b"k" * 16, None)
        for loose in (b"l" * 16, None)
        for status in (200, 201)
        for packed in (b"", b"a", gzip.compress(b"a"))
    }
    assert len(sums) == 24


def test_the_dictionary_never_changes() -> None:
    assert sha256(DICTIONARY).hexdigest() == "0d8449dba11871335785a7923a9f41064dde11179f84a1bd6fae7354fb709317"
