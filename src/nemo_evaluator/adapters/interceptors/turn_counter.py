"""`turn_counter`: counts the turns of conversations, and ends those that go on too long."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any, Literal

from multidict import CIMultiDict
from pydantic import Field

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response, error_response
from nemo_evaluator.adapters.parameters import Parameters

BLOCK = "turns"
"""Name of its numbers among the statistics."""

_log = logging.getLogger(__name__)


class TurnCounterParameters(Parameters):
    """Most turns of a conversation (null: any number), and what a request beyond them gets."""

    max_turns: Annotated[int, Field(ge=1)] | None = None
    on_limit: Literal["error", "stop"] = "error"


class TurnCounter:
    """Counts how often the model was asked in each conversation: requests with `messages`.

    A turn is an answer of the model. A request asks for turn 1 + n, where n is the number of assistant messages that
    have come since the conversation's first request: examples in a prompt are none. Requests belong to one conversation
    when the harness names one sample for them, else when they agree up to the first message of the user.

    A request beyond `max_turns` never reaches the endpoint. With `on_limit: error` it gets a 400 that names the limit;
    with `stop` an empty assistant message whose finish reason is `length`, as if the model had no room left.
    """

    def __init__(self, parameters: TurnCounterParameters, context: Context) -> None:
        self._limit = parameters.max_turns
        self._on_limit = parameters.on_limit
        self._name = context.name
        self._given: dict[int, int] = {}
        self._conversations = 0
        self._turns = 0
        self._longest = 0
        self._over_limit = 0
        context.stats.publish(BLOCK, self.numbers)

    def numbers(self) -> dict[str, Any]:
        """The numbers so far; may be called from any thread.

        `turns` are usable answers in conversations, `conversations` those that had a first one.
        """
        conversations, turns = self._conversations, self._turns
        return {
            "conversations": conversations,
            "turns": turns,
            "mean": round(turns / conversations, 3) if conversations else None,
            "max": self._longest,
            "max_turns": self._limit,
            "over_limit": self._over_limit,
        }

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Count the turn that the request asks for."""
        turn = self._turn(request) if request.is_counted else None
        if turn is None:
            return await call_next(request)
        if self._limit is not None and turn > self._limit:
            self._over_limit += 1
            return self._refusal(turn) if self._on_limit == "error" else _stop(request)
        response = await call_next(request)
        if response.exchange is not None:
            response.exchange.when_over(lambda exchange: self._answered(turn, exchange))
        return response

    async def close(self) -> None:
        """Say in the log what was counted."""
        if self._turns or self._over_limit:
            numbers = self.numbers()
            _log.info(
                "turn_counter: %s: %d turns in %d conversations, mean %s, longest %d; %d requests beyond max_turns",
                self._name,
                numbers["turns"],
                numbers["conversations"],
                numbers["mean"],
                numbers["max"],
                numbers["over_limit"],
            )

    def _turn(self, request: Request) -> int | None:
        """Which turn the request asks for; None when it is no conversation."""
        try:
            body: Any = request.json()
        except ValueError:
            return None
        messages = body.get("messages") if isinstance(body, dict) else None
        if not isinstance(messages, list):
            return None
        count = [_role(message) for message in messages].count("assistant")
        key = hash(request.sample if request.sample is not None else _beginning(messages))
        given = min(self._given.get(key, count), count)
        self._given[key] = given
        return count - given + 1

    def _answered(self, turn: int, exchange: Exchange) -> None:
        if exchange.is_usable:
            self._turns += 1
            self._conversations += turn == 1
            self._longest = max(self._longest, turn)

    def _refusal(self, turn: int) -> Response:
        message = (
            f"the conversation has had the {self._limit} turns that 'turn_counter' allows (max_turns); "
            f"turn {turn} was not sent to the endpoint"
        )
        return error_response(400, message, kind="invalid_request_error", code="max_turns_exceeded")


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _beginning(messages: list[Any]) -> str:
    """What tells a conversation apart: all up to the first message of the user."""
    end = next((index for index, message in enumerate(messages) if _role(message) == "user"), len(messages) - 1)
    return repr(messages[: end + 1])


def _stop(request: Request) -> Response:
    """An empty answer of the model that was cut."""
    document = request.json()
    message = {"role": "assistant", "content": ""}
    streams = document.get("stream") is True
    answer = {
        "id": "chatcmpl-max-turns",
        "object": "chat.completion.chunk" if streams else "chat.completion",
        "created": 0,
        "model": document.get("model"),
        "choices": [{"index": 0, "delta" if streams else "message": message, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
    body = json.dumps(answer).encode()
    if streams:
        body = b"data: " + body + b"\n\ndata: [DONE]\n\n"
    facts = AnswerFacts()
    facts.add(answer, is_event=streams)
    exchange = Exchange(200, facts=facts, body=body, is_over=True)
    headers = CIMultiDict({"Content-Type": "text/event-stream" if streams else "application/json"})
    return Response(200, headers, body, reason="OK", exchange=exchange)
