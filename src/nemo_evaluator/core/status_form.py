"""What a reader may rely on in a `status.json`, which anything may have written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

Check = Callable[[Any, str], str | None]
"""Returns what is wrong with a value at a place of the document, None when nothing is."""

ENDED = ("finished", "failed", "interrupted")
STATES = ("starting", "preflight", "running", "paused", "stopping", *ENDED)
_MOST = 2**63
_LONGEST_SECONDS = 1e12


def flaw_of(document: object) -> str | None:
    """What keeps `document` from being a run's status of this version; None when nothing does.

    Keys that no reader needs are not looked at, so that a later version may add some.
    """
    return _STATUS(document, "")


def _simple(is_right: Callable[[Any], bool], kind: str) -> Check:
    def check(value: Any, place: str) -> str | None:
        return None if is_right(value) else f"{place} is not {kind}"

    return check


def _optional(inner: Check) -> Check:
    return lambda value, place: None if value is None else inner(value, place)


def _keys(**inner: Check) -> Check:
    """A mapping that has these keys, and perhaps others."""

    def check(value: Any, place: str) -> str | None:
        if not isinstance(value, Mapping):
            return f"{place or 'it'} is not an object"
        for key, of_key in inner.items():
            where = f"{place}.{key}" if place else key
            flaw = of_key(value[key], where) if key in value else f"{where} is missing"
            if flaw is not None:
                return flaw
        return None

    return check


def _each(inner: Check) -> Check:
    """A mapping whose every value is of one kind."""

    def check(value: Any, place: str) -> str | None:
        if not isinstance(value, Mapping):
            return f"{place} is not an object"
        return next((flaw for key, item in value.items() if (flaw := inner(item, f"{place}.{key}"))), None)

    return check


def _list(inner: Check) -> Check:
    def check(value: Any, place: str) -> str | None:
        if not isinstance(value, list):
            return f"{place} is not a list"
        return next((flaw for index, item in enumerate(value) if (flaw := inner(item, f"{place}[{index}]"))), None)

    return check


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_moment(value: Any) -> bool:
    try:
        datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return False
    return True


_text = _simple(lambda value: isinstance(value, str), "a text")
_flag = _simple(lambda value: isinstance(value, bool), "true or false")
_count = _simple(lambda value: type(value) is int and abs(value) < _MOST, "a whole number")
_number = _simple(lambda value: _is_number(value) and abs(value) < _MOST, "a number")
_rate = _simple(lambda value: isinstance(value, float) or type(value) is int, "a number")
_seconds = _simple(lambda value: _is_number(value) and abs(value) < _LONGEST_SECONDS, "a number of seconds")
_moment = _simple(_is_moment, "a time")
_state = _simple(lambda value: isinstance(value, str) and value in STATES, f"one of {', '.join(STATES)}")
_process_id = _simple(lambda value: type(value) is int and 0 < value < _MOST, "the number of a process")

_UPSTREAM = _keys(
    **dict.fromkeys(
        (
            "requests", "answered", "failed", "in_flight", "waiting", "retried", "cached", "not_stored", "truncated",
        ),
        _count,
    ),
    errors=_each(_count),
    tokens=_keys(total=_count),
    rates=_keys(tokens_per_second=_rate, overall_tokens_per_second=_rate),
    latency_ms=_keys(p50=_optional(_number), p90=_optional(_number), p99=_optional(_number)),
    cost=_optional(_number),
    currency=_optional(_text),
    concurrency=_optional(_keys(limit=_optional(_count))),
)  # fmt: skip
_STATUS = _keys(
    state=_state,
    updated=_moment,
    clock=_seconds,
    pid=_process_id,
    host=_text,
    process=_keys(kernel=_optional(_text), namespace=_optional(_text), start_ticks=_optional(_count)),
    elapsed_seconds=_seconds,
    ended=_optional(_moment),
    exit_code=_optional(_count),
    reason=_optional(_text),
    metrics_url=_optional(_text),
    store=_optional(_keys(path=_text, relative=_text, starts=_list(_count))),
    samples=_keys(
        done=_count,
        failed=_count,
        planned=_optional(_count),
        per_second=_rate,
        eta_seconds=_optional(_seconds),
        mean_scores=_each(_rate),
    ),
    upstreams=_each(_UPSTREAM),
    answers=_list(_keys(id=_text, command=_text, accepted=_flag, message=_text)),
)
