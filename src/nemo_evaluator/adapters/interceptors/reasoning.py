"""`reasoning`: takes the model's reasoning out of its answers, so that harnesses see the answer only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.interceptors.response_stats import stats_path
from nemo_evaluator.adapters.json_text import exact_json, lenient_json
from nemo_evaluator.adapters.messages import Decoder, Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.reasoning_counts import Reasoned, ReasoningCounts
from nemo_evaluator.adapters.reasoning_stream import ReasoningRewriter, RewrittenStream, Told
from nemo_evaluator.adapters.reasoning_text import ReasoningRules, choices_of, field_of, is_assistant
from nemo_evaluator.adapters.stats_file import PeriodicStats

_OK = 200


class ReasoningParameters(Parameters):
    """Which tokens mark the reasoning, what becomes of an answer whose reasoning never ended, and what is counted."""

    end_reasoning_token: Annotated[str, Field(min_length=1)] = "</think>"  # noqa: S105  a mark in the model's text
    start_reasoning_token: Annotated[str, Field(min_length=1)] | None = "<think>"  # noqa: S105  as above
    add_reasoning: bool = True
    migrate_reasoning_content: bool = False
    enable_reasoning_tracking: bool = True
    include_if_not_finished: bool = True
    stats_file_saving_interval: Annotated[int, Field(ge=1)] | None = None
    enable_caching: bool = True
    cache_dir: str | None = None
    logging_aggregated_stats_interval: Annotated[int, Field(ge=1)] = 100

    @property
    def rules(self) -> ReasoningRules:
        """What becomes of the content."""
        return ReasoningRules(
            end=self.end_reasoning_token,
            start=self.start_reasoning_token,
            removes=self.add_reasoning,
            migrates=self.migrate_reasoning_content,
            keeps_unfinished=self.include_if_not_finished,
        )


class Reasoning:
    """Removes everything up to the last end token from the content of assistant messages.

    A message that carries its reasoning in a field of its own (`reasoning_content`, or `reasoning`) keeps its content.
    Without an end token the content stays, or is emptied when `include_if_not_finished` is off. With `add_reasoning`
    off nothing is removed, but `migrate_reasoning_content` puts the reasoning field in front of the content. Streamed
    answers come to the same; `reasoning_stream` says what of them is held, and until when.

    Statistics are about what the endpoint sent in this start: answers from the store were counted by an earlier one.
    """

    def __init__(self, parameters: ReasoningParameters, context: Context) -> None:
        self._rules = parameters.rules
        self._stats = context.stats
        self._counts: ReasoningCounts | None = None
        self._periodic: PeriodicStats | None = None
        if parameters.enable_reasoning_tracking and parameters.add_reasoning:
            self._counts = counts = context.stats.reasoning = ReasoningCounts()
            folder = parameters.cache_dir if parameters.enable_caching else None
            self._periodic = PeriodicStats(
                counts.as_dict,
                _summary,
                log_every=parameters.logging_aggregated_stats_interval,
                path=stats_path(folder, "reasoning_stats", context.name),
                write_every=parameters.stats_file_saving_interval,
            )

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Change the answer."""
        response = await call_next(request)
        if response.status != _OK or self._rules.changes_nothing:
            return response
        tell = self._teller(response.exchange) if request.is_counted else _tell_nobody
        if response.is_event_stream:
            await self._change_stream(response, tell)
        elif response.is_json:
            await self._change_json(response, tell)
        return response

    async def close(self) -> None:
        """Write the last statistics."""
        if self._periodic is not None:
            await self._periodic.close()

    def _teller(self, exchange: Exchange | None) -> Told:
        """What counts the messages of an answer; its tokens are counted at its end, once."""
        counts, periodic = self._counts, self._periodic
        if counts is None or periodic is None or (exchange is not None and exchange.source == "store"):
            return _tell_nobody
        if exchange is not None:
            exchange.when_over(lambda over: _count_tokens(counts, over))

        def tell(message: Reasoned) -> None:
            counts.add(message)
            periodic.count()

        return tell

    async def _change_json(self, response: Response, tell: Told) -> None:
        body = await response.read()
        try:
            document = exact_json(body)
        except ValueError:
            # No JSON in spite of its headers: there is no message in it, and the harness sees what came.
            return
        messages = [choice["message"] for choice in choices_of(document) if is_assistant(choice.get("message"))]
        changed = [self._change_message(message, tell) for message in messages]
        if any(changed):
            response.replace_body(lenient_json(document))

    def _change_message(self, message: dict[str, Any], tell: Told) -> bool:
        before, field = message.get("content"), field_of(message)
        if not isinstance(before, str | None) or (before is None and (self._rules.removes or not field)):
            return False
        if self._rules.removes:
            tell(self._rules.reasoned(before or "", field, has_calls=bool(message.get("tool_calls"))))
        after = self._rules.updated(before or "", field)
        if after == before:
            return False
        message["content"] = after
        return True

    async def _change_stream(self, response: Response, tell: Told) -> None:
        rewriter = ReasoningRewriter(self._rules, tell)
        if isinstance(response.body, bytes):
            body = await response.read()
            response.replace_body(rewriter.feed(body) + rewriter.finish())
            return
        try:
            decoder = Decoder(response.headers.get("Content-Encoding") or "identity")
        except ValueError as error:
            await response.aclose()
            raise UpstreamFailure(f"the stream cannot be read: {error}", code="unreadable_answer") from error
        stream = response.body
        response.replace_body(b"")
        response.body = RewrittenStream(
            stream, rewriter, decoder=decoder, limit=response.limit, failed=self._stream_failed
        )

    def _stream_failed(self, failure: UpstreamFailure) -> None:
        """Count a failure that comes too late for an answer with an error status."""
        self._stats.exchange_failed(failure.status, str(failure), kind=failure.code)
        failure.is_counted = True


def _tell_nobody(_message: Reasoned) -> None:
    """For messages that are not counted."""


def _count_tokens(counts: ReasoningCounts, exchange: Exchange) -> None:
    if exchange.is_usable:
        facts = exchange.facts
        counts.add_tokens(reasoning=facts.reasoning_tokens, completion=facts.completion_tokens)


def _summary(stats: Mapping[str, Any]) -> str:
    text = (
        f"reasoning: {stats['reasoning_started_count']} of {stats['total_responses']} messages reason, "
        f"{stats['reasoning_unfinished_count']} without an end"
    )
    if stats["avg_reasoning_words"] is not None:
        text += f", {stats['avg_reasoning_words']:g} words on average"
    return text
