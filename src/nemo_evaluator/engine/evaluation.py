"""From a plan to aggregated records: the loop, supervised, over what a folder does not hold yet."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nemo_evaluator.engine.aggregate import Aggregator
from nemo_evaluator.engine.client import Client, Endpoint
from nemo_evaluator.engine.health import EndpointHealth
from nemo_evaluator.engine.loop import Loop
from nemo_evaluator.engine.plan import Plan
from nemo_evaluator.engine.progress import ProgressCallback, ProgressMeter
from nemo_evaluator.engine.protocol import RequestSettings
from nemo_evaluator.engine.records import RecordFile
from nemo_evaluator.errors import InterruptedRun

_STOPPING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How hard the endpoint may be asked."""

    parallelism: int
    max_retries: int
    request_timeout: float
    scoring_threads: int

    def client(self, endpoint: Endpoint, *, planned: int | None = None) -> Client:
        """A client of `endpoint` within these limits, which tells it that `planned` answers are to be had.

        Raises:
            UsageError: the URL cannot be used, or the system does not allow so many connections.
        """
        return Client(
            endpoint,
            parallelism=self.parallelism,
            timeout=self.request_timeout,
            max_retries=self.max_retries,
            planned=planned,
        )


def evaluate(
    plan: Plan,
    client: Client,
    *,
    settings: RequestSettings,
    records: RecordFile,
    limits: Limits,
    progress: ProgressCallback | None = None,
) -> Aggregator:
    """Have and score the planned answers that `records`, resumed, do not hold yet; all of them aggregated.

    Raises:
        EndpointError: the endpoint cannot be used.
        InterruptedRun: SIGTERM or SIGINT came.
    """
    if records.kept < plan.answers:
        loop = Loop(
            plan=plan,
            client=client,
            settings=settings,
            records=records,
            health=EndpointHealth(endpoint=client.place, parallelism=limits.parallelism),
            meter=ProgressMeter(plan.answers, records.kept, progress),
            workers=limits.parallelism,
            scoring_threads=limits.scoring_threads,
        )
        asyncio.run(_supervise(loop))
    aggregator = Aggregator(planned=plan.answers, repeats=plan.repeats)
    for record in records.finish():
        aggregator.take(record)
    return aggregator


async def _supervise(loop: Loop) -> None:
    """Run the loop until it is done or a signal says to stop."""
    received: list[int] = []
    task = asyncio.current_task()
    assert task is not None

    def stop(number: int) -> None:
        received.append(number)
        task.cancel()

    with _signals(stop):
        try:
            async with loop.client:
                await loop.run()
        except asyncio.CancelledError:
            if not received:
                raise
            raise InterruptedRun(received[0]) from None


@contextlib.contextmanager
def _signals(handler: Callable[[int], None]) -> Iterator[None]:
    # Only the main thread may handle signals; elsewhere whoever owns it decides when to stop.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, handler, number)
    try:
        yield
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)
