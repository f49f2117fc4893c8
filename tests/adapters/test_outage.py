from __future__ import annotations

import asyncio

from tests.adapters.interceptors.crowd import in_loop

from nemo_evaluator.adapters.context import Context, Ends
from nemo_evaluator.adapters.outage import OutageGate, outage_gate_of
from nemo_evaluator.adapters.upstream import Upstream


def gate_of(*, seconds: float = 60.0, ends: Ends | None = None) -> OutageGate:
    gate = OutageGate("http://h:1", ends or Ends())
    gate.configure(seconds, longest_gap=0.5)
    return gate


def is_shut(gate: OutageGate) -> bool:
    return gate.is_shut


def refuse(gate: OutageGate, *, is_probe: bool = False) -> None:
    gate.failed(object(), "refused", is_certain=True, is_probe=is_probe)


async def queue(gate: OutageGate, count: int) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(gate.wait()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def gone(tasks: list[asyncio.Task[bool]]) -> int:
    return sum(task.done() for task in tasks)


async def leave(tasks: list[asyncio.Task[bool]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@in_loop
async def test_one_connection_that_cannot_be_made_shuts_it() -> None:
    gate = gate_of()
    assert not gate.must_wait
    refuse(gate)
    assert is_shut(gate)
    tasks = await queue(gate, 3)
    assert gate.waiting == 3
    assert await tasks[0] is True
    assert gone(tasks) == 1
    await leave(tasks)
    assert gate.waiting == 0
    gate.close()


@in_loop
async def test_broken_exchanges_shut_it_when_nothing_else_happens_for_a_second() -> None:
    gate = gate_of()
    askers = [object(), object()]

    def fail(times: int, *, of: int) -> None:
        for number in range(times):
            gate.failed(askers[number % of], "reset", is_certain=False, is_probe=False)

    fail(10, of=2)
    assert not is_shut(gate)
    gate.answered()
    fail(2, of=1)
    await asyncio.sleep(1.1)
    fail(10, of=1)
    assert not is_shut(gate)
    fail(2, of=2)
    assert is_shut(gate)
    gate.close()


@in_loop
async def test_a_probe_that_fails_is_followed_by_another_request() -> None:
    gate = gate_of()
    refuse(gate)
    first, second, third = await queue(gate, 3)
    assert await first
    refuse(gate, is_probe=True)
    assert await second
    assert not third.done()
    await leave([third])
    gate.close()


@in_loop
async def test_a_probe_that_hangs_or_leaves_does_not_hold_up_the_others() -> None:
    gate = gate_of()
    refuse(gate)
    tasks = await queue(gate, 2)
    tasks[0].cancel()
    assert await tasks[1]
    gate.close()


@in_loop
async def test_those_waiting_go_in_growing_groups() -> None:
    gate = gate_of()
    refuse(gate)
    tasks = await queue(gate, 40)
    await tasks[0]
    gate.answered()
    await asyncio.sleep(0)
    assert gone(tasks) == 2
    assert gate.waiting == 38
    assert not any(await asyncio.gather(*tasks[1:]))
    assert not is_shut(gate)
    assert not gate.must_wait


@in_loop
async def test_an_outage_ends_the_run_for_all_who_wait() -> None:
    ends = Ends()
    gate = gate_of(seconds=0.2, ends=ends)
    refuse(gate)
    await asyncio.gather(*await queue(gate, 5))
    assert "http://h:1 has been unreachable" in (ends.reason or "")
    assert (ends.kind, ends.status) == ("outage", 503)
    assert gate.waiting == 0
    gate.close()


@in_loop
async def test_an_outage_that_nobody_waits_for_ends_nothing() -> None:
    ends = Ends()
    gate = gate_of(seconds=0.1, ends=ends)
    refuse(gate)
    await leave(await queue(gate, 1))
    await asyncio.sleep(0.3)
    assert ends.reason is None
    gate.close()


def test_one_origin_has_one_gate() -> None:
    model = Context(upstream=Upstream("http://h:1/v1/chat/completions"))
    judge = Context(upstream=Upstream("http://h:1/v1"), shared_objects=model.shared_objects)
    assert outage_gate_of(model) is outage_gate_of(judge)
