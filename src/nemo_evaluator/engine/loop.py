"""The loop: samples out, answers in, verdicts to the records."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nemo_evaluator.adapters.sample_header import sample_header
from nemo_evaluator.engine.benchmark import Sample, Verdict
from nemo_evaluator.engine.client import Client, Reply, RequestFailedError
from nemo_evaluator.engine.health import EndpointHealth
from nemo_evaluator.engine.plan import Plan
from nemo_evaluator.engine.progress import ProgressMeter
from nemo_evaluator.engine.protocol import RequestSettings, request_body
from nemo_evaluator.engine.records import RecordFile
from nemo_evaluator.engine.retry import Failure
from nemo_evaluator.engine.scoring import ScoringThreads, judge

BACKLOG_PER_THREAD = 16
"""Answers that may wait for a scoring thread before requesting waits too."""
MAX_SCORER_MESSAGE = 500
"""Characters of what a scorer raised that go into a record."""


@dataclass(frozen=True, slots=True)
class Question:
    """One answer to be had."""

    place: int
    sample: Sample
    repeat: int


@dataclass(slots=True, kw_only=True)
class Loop:
    """Asks what is planned and not recorded yet, with as many requests at once as there are workers."""

    plan: Plan
    client: Client
    settings: RequestSettings
    records: RecordFile
    health: EndpointHealth
    meter: ProgressMeter
    workers: int
    scoring_threads: int
    _common: Mapping[str, Any] = field(init=False)
    _run: str = field(init=False)
    _threads: ScoringThreads | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._common = self.settings.common()
        self._run = secrets.token_hex(6)

    async def run(self) -> None:
        """Ask everything.

        Raises:
            EndpointError: the endpoint cannot be used.
            ResultsError: the records cannot be written.
        """
        if self.plan.task.scoring == "workers":
            self._threads = ScoringThreads(
                self.plan.task,
                threads=self.scoring_threads,
                backlog=self.scoring_threads * BACKLOG_PER_THREAD,
            )
        questions = self._open_questions()
        workers = [asyncio.create_task(self._work(questions)) for _ in range(min(self.workers, self.plan.answers))]
        try:
            await _all_or_first_error(workers)
            if self._threads is not None:
                await self._threads.drain()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            if self._threads is not None:
                self._threads.stop()
            self.meter.report()

    def _open_questions(self) -> Iterator[Question]:
        repeats = self.plan.repeats
        for number, sample in enumerate(self.plan.read()):
            for repeat in range(repeats):
                place = number * repeats + repeat
                if not self.records.has(place):
                    yield Question(place, sample, repeat)

    async def _work(self, questions: Iterator[Question]) -> None:
        # All workers draw from one iterator, so nothing is read or rendered before a worker is free for it.
        for question in questions:
            await self._ask(question)

    async def _ask(self, question: Question) -> None:
        sample = question.sample
        body = request_body(sample, self.settings, common=self._common, repeat=question.repeat)
        try:
            reply = await self.client.ask(
                body, request_id=f"{self._run}-{question.place}", sample_id=sample_header(sample.id)
            )
        except RequestFailedError as error:
            self._record_failure(question, error.failure, attempts=error.attempts, request_id=error.request_id)
            self.health.failed(error.failure)
            return
        self.health.answered()
        if self._threads is None:
            self._judged(question, reply, judge(self.plan.task, sample, reply.answer.text))
        else:
            await self._threads.submit(sample, reply.answer.text, partial(self._judged, question, reply))

    def _judged(self, question: Question, reply: Reply, verdict: Verdict | Exception) -> None:
        if isinstance(verdict, Exception):
            failure = Failure(kind="scoring", message=_of_scorer(verdict))
            self._record_failure(question, failure, attempts=reply.attempts, request_id=reply.request_id, reply=reply)
            return
        record = _head(question) | {
            "status": "scored",
            "scores": verdict.scores,
            "extracted": verdict.extracted,
            **_of_reply(reply),
            "attempts": reply.attempts,
            "request_id": reply.request_id,
        }
        if verdict.detail is not None:
            record["detail"] = verdict.detail
        self.records.append(question.place, record)
        self.meter.scored(verdict.scores.get(self.plan.task.metric))

    def _record_failure(
        self, question: Question, failure: Failure, *, attempts: int, request_id: str, reply: Reply | None = None
    ) -> None:
        record = _head(question) | {
            "status": "failed",
            "error": {"kind": failure.kind, "status": failure.status, "message": failure.message},
            **(_of_reply(reply) if reply is not None else {}),
            "attempts": attempts,
            "request_id": request_id,
        }
        self.records.append(question.place, record)
        self.meter.failed_one()


def _head(question: Question) -> dict[str, Any]:
    sample = question.sample
    return {"id": sample.id, "repeat": question.repeat, "group": sample.group, "target": sample.target}


def _of_reply(reply: Reply) -> dict[str, Any]:
    answer = reply.answer
    fields: dict[str, Any] = {
        "response": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage,
        "latency_ms": round(reply.latency * 1000, 1),
    }
    if answer.refusal is not None:
        fields["refusal"] = answer.refusal
    if answer.reasoning is not None:
        fields["reasoning"] = answer.reasoning
    return fields


def _of_scorer(error: Exception) -> str:
    text = " ".join(f"the scorer failed: {type(error).__name__}: {error}".split())
    return text[:MAX_SCORER_MESSAGE].encode("utf-8", "replace").decode()


async def _all_or_first_error(workers: list[asyncio.Task[None]]) -> None:
    done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
    for worker in done:
        worker.result()
