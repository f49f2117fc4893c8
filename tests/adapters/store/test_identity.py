from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from nemo_evaluator.adapters.messages import Request
from nemo_evaluator.adapters.redaction import Secret
from nemo_evaluator.adapters.store.identity import identify, origin_of

URL = "https://host/v1/chat/completions"


def of(
    body: bytes | dict[str, Any] = b"{}", *, url: str = URL, method: str = "POST", headers: dict[str, str] | None = None
) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return identify(Request(method, url, CIMultiDict(headers or {}), data)).key


SAME = [
    (b'{"a": 1, "b": [1, 2]}', b'{"b":[1,2],"a":1}'),
    (b'{"a": "\\u00e9"}', '{"a": "é"}'.encode()),
    (b'{"a": 123456789012345678901234567890, "b": 1}', b'{"b": 1, "a": 123456789012345678901234567890}'),
    ('{"\ue710": null}'.encode(), b'{"\\ue710": null}'),
    (b'{"a": NaN, "b": 1}', b'{"b": 1, "a": NaN}'),
]
DIFFERENT = [
    (b'{"a": 1}', b'{"a": 1.0}'),
    (b'{"a": 1}', b'{"a": "1"}'),
    (b'{"a": null}', b"{}"),
    (b'{"a": NaN}', b'{"a": null}'),
    (b'{"a": 1e400}', b'{"a": null}'),
    (b'{"a": 1e400}', b'{"a": -1e400}'),
    (b'{"a": 123456789012345678901234567890}', b'{"a": 123456789012345678901234567891}'),
    (b'{"a": [1, 2]}', b'{"a": [2, 1]}'),
    (b'{"seed": 1}', b'{"seed": 2}'),
    (b'{"seed": 1}', b"{}"),
    (b'{"seed": 1}', b'{"seed": "1"}'),
    (b'{"a": "\\ud800"}', b'{"a": "\\ud801"}'),
    (b"no json", b"no json "),
    (b"{}", b""),
    (b"[" * 100_000, b"[" * 100_001),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_form_of_json_does_not_matter(one: bytes, other: bytes) -> None:
    assert of(one) == of(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_it_says_does(one: bytes, other: bytes) -> None:
    assert of(one) != of(other)


def test_the_endpoint_counts_by_name_and_path_and_its_credentials_do_not() -> None:
    assert of(url="https://user:pass@host/v1/chat/completions") == of()
    assert of(url=f"{URL}?api_key=a&version=2") == of(url=f"{URL}?version=2&api-key=b")
    others = [f"{URL}?version=2", f"{URL}/x", f"{URL}?version=3"]
    assert len({of(), *(of(url=url) for url in others)}) == 4
    assert of(method="PUT") != of()
    judged = Request("POST", URL, CIMultiDict(), b"{}", upstream="judge")
    assert identify(judged).key != of()


def test_it_may_come_back_at_another_origin() -> None:
    moved = ("http://host/v1/chat/completions", "https://other:8/v1/chat/completions")
    assert {of(url=url) for url in moved} == {of()}


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("http://host", "https://host"),
        ("http://host:81", "http://host"),
        ("unknown:1", "unknown:2"),
        ("http://host:port", "http://host"),
    ],
)
def test_origins_that_differ_are_told_apart(address: str, other: str) -> None:
    assert origin_of(address) != origin_of(other)


def test_origins_are_compared_by_what_they_mean() -> None:
    assert origin_of("http://Host/v1") == origin_of("http://host:80/v2")
    assert origin_of("https://host:443") == origin_of("https://host")


@pytest.mark.parametrize(
    "header",
    ["Authorization", "X-Api-Key", "api-key", "Cookie", "openai-api-key", "User-Agent", "X-Request-Id", "traceparent"],
)
def test_headers_that_say_nothing_about_the_answer_do_not_count(header: str) -> None:
    assert of(headers={header: "one"}) == of(headers={header: "other"}) == of()


@pytest.mark.parametrize("header", ["OpenAI-Beta", "anthropic-version", "X-Api-Version", "api-version"])
def test_headers_that_choose_the_interface_count(header: str) -> None:
    assert len({of(headers={header: "one"}), of(headers={header: "other"}), of()}) == 3
    assert of(headers={header: "one"}) == of(headers={header.lower(): "one"})


def test_headers_that_the_configuration_set_count_unless_they_are_credentials() -> None:
    def with_header(value: str, name: str = "X-Team") -> bytes:
        request = Request("POST", URL, CIMultiDict({"X-Team": "harness"}), b"{}")
        request.headers[name] = value
        return identify(request).key

    assert with_header("harness") == of(headers={"X-Team": "anything"})
    assert len({with_header("harness"), with_header("a"), with_header("b")}) == 3
    # Hidden values count as well: tenant one must not get the answers of tenant two.
    assert len({with_header(Secret("a")), with_header(Secret("b")), with_header("harness")}) == 3
    for name in ("Authorization", "X-Gateway-Key", "Cookie"):
        assert with_header(Secret("a"), name) == with_header(Secret("b"), name) == with_header("harness")


def test_the_loose_key_leaves_out_the_value_of_the_seed_only() -> None:
    def loose(body: bytes) -> bytes:
        return identify(Request("POST", URL, CIMultiDict(), body)).loose

    assert loose(b'{"a": 1, "seed": 1}') == loose(b'{"seed": 9, "a": 1}')
    assert len({loose(b'{"a": 1, "seed": 1}'), loose(b'{"a": 1}'), loose(b'{"a": 2, "seed": 1}')}) == 3
    found = identify(Request("POST", URL, CIMultiDict(), b'{"seed": 123456789012345678901234567890}'))
    assert (found.seed, found.has_seed) == (None, True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(document=json_values)
def test_any_json_has_one_key_however_it_is_written(document: Any) -> None:
    compact = json.dumps(document, separators=(",", ":")).encode()
    spaced = json.dumps(_reversed(document), indent=2, ensure_ascii=False).encode(errors="surrogatepass")
    assert of(compact) == of(spaced) or b"\xed" in spaced


def _reversed(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: _reversed(document[name]) for name in reversed(document)}
    return [_reversed(item) for item in document] if isinstance(document, list) else document
