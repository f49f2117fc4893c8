from __future__ import annotations

import asyncio
import threading

import pytest
from tests.adapters.interceptors.crowd import in_loop

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.limiter import Limiter, limiter_of
from nemo_evaluator.adapters.upstream import Upstream


async def turns(limiter: Limiter, *names: str) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Queue one request for each name; returns who has had a turn so far, in order."""
    served: list[str] = []

    async def ask(name: str) -> None:
        await limiter.acquire(name[0])
        served.append(name)

    tasks = [asyncio.create_task(ask(name)) for name in names]
    await settle()
    return served, tasks


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def busy(limiter: Limiter, count: int) -> None:
    for _ in range(count):
        assert limiter.try_acquire()


@in_loop
async def test_chains_take_turns_and_keep_their_order() -> None:
    limiter = Limiter()
    limiter.set_max(1)
    busy(limiter, 1)
    served, _ = await turns(limiter, *(f"a{number}" for number in range(50)), "b0", "b1", "c0")
    for _ in range(7):
        limiter.release()
        await settle()
    assert served == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]
    assert (limiter.in_use, limiter.waiting) == (1, 46)
    for _ in range(46):
        limiter.release()
        await settle()
    assert served[-1] == "a49"


@in_loop
async def test_nobody_overtakes_those_who_wait() -> None:
    limiter = Limiter()
    limiter.set_max(1)
    busy(limiter, 1)
    served, _ = await turns(limiter, "a0")
    limiter.release()
    assert not limiter.try_acquire()
    await settle()
    assert served == ["a0"]


@in_loop
async def test_who_leaves_gives_up_the_place_or_the_slot() -> None:
    limiter = Limiter()
    limiter.set_max(1)
    busy(limiter, 1)
    served, tasks = await turns(limiter, "a0", "a1", "b0", "a2")
    tasks[2].cancel()
    await settle()
    assert limiter.waiting == 3
    limiter.release()
    # The slot is granted, but the task has not run yet.
    tasks[0].cancel()
    await settle()
    assert served == ["a1"]
    tasks[3].cancel()
    await settle()
    limiter.release()
    assert (limiter.in_use, limiter.waiting) == (0, 0)


@in_loop
async def test_it_can_be_paused_and_changed_from_another_thread() -> None:
    limiter = Limiter()
    limiter.set_max(2)
    busy(limiter, 2)
    served, _ = await turns(limiter, *(f"a{number}" for number in range(6)))

    async def from_thread(change: str, *values: int | None) -> None:
        thread = threading.Thread(target=getattr(limiter, change), args=values)
        thread.start()
        thread.join()
        await settle()

    await from_thread("pause")
    assert limiter.is_paused
    limiter.release()
    limiter.release()
    await settle()
    assert (served, limiter.in_use) == ([], 0)
    await from_thread("resume")
    assert served == ["a0", "a1"]
    await from_thread("set_max", 4)
    assert (len(served), limiter.limit) == (4, 4)
    await from_thread("set_max", 1)
    assert limiter.in_use == 4
    await from_thread("set_max", None)
    assert (len(served), limiter.limit) == (6, None)
    with pytest.raises(ValueError, match="at least 1"):
        limiter.set_max(0)


def test_it_can_be_paused_before_the_first_request_and_after_the_last() -> None:
    limiter = Limiter()
    limiter.pause()

    @in_loop
    async def use() -> None:
        served, _ = await turns(limiter, "a0")
        assert not served
        limiter.resume()
        await settle()
        assert served == ["a0"]

    use()
    limiter.pause()
    limiter.close()


@in_loop
async def test_push_back_halves_once_for_all_that_were_sent_together() -> None:
    limiter = Limiter()
    busy(limiter, 64)
    epoch = limiter.epoch
    for _ in range(20):
        limiter.push_back(epoch)
        limiter.release()
    assert limiter.limit == 32


@in_loop
async def test_no_more_are_let_go_than_remained_after_a_volley() -> None:
    limiter = Limiter()
    busy(limiter, 64)
    epoch = limiter.epoch
    for _ in range(56):
        limiter.push_back(epoch)
        limiter.release()
    assert (limiter.limit, limiter.in_use) == (8, 8)


@in_loop
async def test_late_push_back_to_older_requests_changes_nothing() -> None:
    limiter = Limiter()
    busy(limiter, 64)
    first = limiter.epoch
    limiter.push_back(first)
    limiter.push_back(limiter.epoch)
    limit = limiter.limit
    limiter.push_back(first)
    assert limiter.limit == limit


def answer_rounds(limiter: Limiter, capacity: int, rounds: int) -> int:
    """Fill the limit and answer, round by round; returns how many were refused for being more than `capacity`."""
    refused = 0
    for _ in range(rounds):
        epoch, count = limiter.epoch, 0
        while count < 100 and limiter.try_acquire():
            count += 1
        for _ in range(max(0, count - capacity)):
            limiter.push_back(epoch)
            limiter.release()
            refused += 1
        for _ in range(min(count, capacity)):
            limiter.went_well()
            limiter.release()
    return refused


@in_loop
async def test_it_finds_what_the_endpoint_bears_and_seldom_asks_for_more() -> None:
    limiter = Limiter()
    answer_rounds(limiter, 10, 200)
    assert limiter.limit in (10, 11)
    assert answer_rounds(limiter, 10, 320) <= 320 / 16


@in_loop
async def test_it_follows_an_endpoint_that_bears_more_or_less() -> None:
    limiter = Limiter()
    answer_rounds(limiter, 10, 100)
    answer_rounds(limiter, 40, 400)
    grown = limiter.limit or 0
    assert grown > 20
    answer_rounds(limiter, 4, 50)
    assert (limiter.limit or 0) <= 5


@in_loop
async def test_a_hold_ends_by_itself() -> None:
    limiter = Limiter()
    limiter.hold(0.05)
    assert limiter.held_seconds > 0
    assert not limiter.try_acquire()
    await limiter.acquire("a")
    assert limiter.held_seconds == 0
    assert limiter.try_acquire()


def test_the_stricter_configuration_counts() -> None:
    limiter = Limiter()
    limiter.at_most(8, least=1)
    limiter.at_most(None, least=2)
    limiter.at_most(4, least=1)
    assert limiter.limit == 4


def test_one_origin_has_one_limiter() -> None:
    model = Context(upstream=Upstream("http://h:1/v1/chat/completions"))
    judge = Context(upstream=Upstream("http://h:1/v1/completions"), shared_objects=model.shared_objects)
    other = Context(upstream=Upstream("http://h:2/v1/completions"), shared_objects=model.shared_objects)
    assert limiter_of(model) is limiter_of(judge)
    assert limiter_of(model) is not limiter_of(other)
