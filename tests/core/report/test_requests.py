from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nemo_evaluator.adapters.store.record import Record, Selection, Texts
from nemo_evaluator.core.report.requests import MAX_SHOWN, collect_requests, requests_of
from nemo_evaluator.errors import DataError

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Answer: B"}}]}


def record(number: int, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "id": number,
        "start": 1,
        "time": 1000.0 + number,
        "upstream": "model",
        "address": "http://host/v1/chat/completions",
        "request_id": f"r{number}",
        "attempt": 1,
        "sample": f"s{number % 10}",
        "status": 200,
        "is_usable": True,
        "problem": None,
        "source": "endpoint",
        "seconds": 0.1,
        "first_byte_seconds": 0.05,
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "reasoning_tokens": None,
        "cached_tokens": None,
        "cost": None,
        "finish_reason": "stop",
        "request_bytes": 100,
        "response_bytes": 200,
    }
    return Record(**{**values, **changes})


class Kept:
    """A store in memory."""

    def __init__(self, *records: Record, response: bytes = json.dumps(ANSWER).encode()) -> None:
        self._records = records
        self._response = response

    def records(
        self, selection: Selection, *, limit: int | None = None, newest_first: bool = False
    ) -> Iterator[Record]:
        found = [
            one
            for one in self._records
            if selection.sample in (None, one.sample)
            and selection.upstream in (None, one.upstream)
            and (selection.starts is None or one.start in selection.starts)
        ]
        yield from (found[::-1] if newest_first else found)[:limit]

    def texts(self, id: int) -> Texts:  # noqa: A002  the face of the store
        request = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Ask {id}"}]}
        return Texts(request=json.dumps(request).encode(), response=self._response, response_headers=())


def test_a_store_without_records_is_no_section() -> None:
    assert collect_requests(Kept()) is None


def test_all_requests_are_summed_up() -> None:
    store = Kept(
        *(record(number) for number in range(50)),
        record(50, status=500, is_usable=False, problem="boom", completion_tokens=None, finish_reason=None),
        record(51, status=0, is_usable=False, problem="no connection", completion_tokens=None, finish_reason=None),
        record(52, status=200, is_usable=False, problem="the body is empty", finish_reason=None),
        record(53, finish_reason="length", cost=0.25),
        record(54, finish_reason="content_filter", cost=0.5),
    )

    found = collect_requests(store)

    assert found is not None
    assert found.count == 55
    assert found.outcomes == {
        "answered": 50, "HTTP 500": 1, "no answer": 1, "not usable": 1, "truncated": 1, "refused": 1,
    }  # fmt: skip
    assert found.finish_reasons == {"stop": 50, "length": 1, "content_filter": 1}
    assert found.cost == 0.75
    assert found.latency is not None
    assert found.latency.count == 52
    assert sum(one.answered + one.failed for one in found.timeline.intervals()) == 55


def test_failed_and_odd_requests_are_shown_first_and_never_too_many() -> None:
    found = collect_requests(
        Kept(
            *(record(number) for number in range(2 * MAX_SHOWN)),
            *(record(500 + number, status=503, is_usable=False, problem="busy") for number in range(40)),
            record(600, finish_reason="length"),
            record(601, seconds=9.0),
        )
    )

    assert found is not None
    assert len(found.shown) == MAX_SHOWN
    assert [one.verdict for one in found.shown[:41]] == ["HTTP 503"] * 40 + ["truncated"]
    assert 601 in {one.id for one in found.shown}
    assert len({one.id for one in found.shown}) == MAX_SHOWN


def test_what_was_asked_and_answered_is_shown_as_people_read_it() -> None:
    found = collect_requests(Kept(record(7)))

    assert found is not None
    assert found.shown[0].texts == (("asked", "[system] Be brief.\n\n[user] Ask 7"), ("answered", "Answer: B"))


@pytest.mark.parametrize(
    "response", [b"", b"<html>\x00", b"\xff\xfe", b"[1, 2]", b'{"choices": 3}', b'{"choices": [null]}', b"[" * 100_000]
)
def test_answers_of_any_kind_can_be_shown(response: bytes) -> None:
    found = collect_requests(Kept(record(1), response=response))

    assert found is not None
    assert len(found.shown[0].texts[1][1]) < 7000


def test_samples_are_joined_with_their_last_requests() -> None:
    store = Kept(*(record(number) for number in range(100)))

    found = requests_of(store, ["s3", "unknown"])

    assert {name: [number for number, _ in asked] for name, asked in found.items()} == {"s3": [63, 73, 83, 93]}
    assert found["s3"][-1][1].endswith("[user] Ask 93")


def test_what_a_judge_was_asked_about_a_sample_is_not_what_the_model_was_asked() -> None:
    store = Kept(record(3), record(13, upstream="judge"))

    assert [number for number, _ in requests_of(store, ["s3"])["s3"]] == [3]


def test_only_the_starts_of_the_run_count() -> None:
    store = Kept(record(3), record(13, start=2), record(23, start=3))

    found = collect_requests(store, starts=(1, 3), currency="EUR")

    assert found is not None
    assert (found.count, found.currency) == (2, "EUR")
    assert [number for number, _ in requests_of(store, ["s3"], starts=(2,))["s3"]] == [13]


def test_odd_numbers_are_left_out_and_counted() -> None:
    nan = float("nan")
    store = Kept(
        record(1), record(2, seconds=-5.0), record(3, time=1e300), record(4, seconds=nan, time=nan, cost=nan),
        record(5, seconds=1e300, cost=0.5), record(6, completion_tokens=-7), record(7, seconds=5e-324),
    )  # fmt: skip

    found = collect_requests(store)

    assert found is not None
    assert (found.count, found.cost) == (7, 0.5)
    assert found.latency is not None
    assert (found.latency.count, found.latency.left_out) == (4, 3)
    assert found.completion_tokens is not None
    assert found.completion_tokens.left_out == 1
    assert found.timeline.left_out == 3
    assert sum(one.answered for one in found.timeline.intervals()) == 4


def test_a_damaged_record_is_shown_without_its_texts() -> None:
    class Damaged(Kept):
        def texts(self, id: int) -> Texts:  # noqa: A002  the face of the store
            if id == 2:
                raise DataError("damaged")
            return super().texts(id)

    found = collect_requests(Damaged(record(1), record(2)))

    assert found is not None
    assert [one.texts[0][1] != "" for one in found.shown] == [True, False]
