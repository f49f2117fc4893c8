"""`budget`: ends the run when it has used up its requests, tokens or money, and tells what answers cost."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.ended import ended_response
from nemo_evaluator.adapters.exchange import Exchange
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.ledger import Spent, ledger_of
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.prices import Price, PriceTable, read_prices
from nemo_evaluator.adapters.repeatable import kind_of_failure

Count = Annotated[int, Field(ge=1)]

_REFUSAL = 402


class BudgetParameters(Parameters):
    """Limits, all of which count, and prices.

    Attributes:
        max_requests: most exchanges with the endpoint, repetitions included.
        max_tokens: most tokens of prompts and completions.
        max_completion_tokens: most tokens of completions.
        max_cost: most money, in `currency`.
        prices: by model, per million tokens; or the path of a YAML or JSON file with such a table. Without `max_cost`
            they only tell costs.
        currency: what prices and costs are in.
        scope: what the limits are about: all endpoints of the run that have a `budget`, or this one alone.
        missing_usage: what to do about an answer that reports no tokens although a limit or a price needs them: end
            the run, because the limit cannot be kept, or count nothing for it.
    """

    max_requests: Count | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None
    prices: dict[str, Price] | None = None
    currency: Annotated[str, Field(min_length=1, max_length=16)] = "USD"
    scope: Literal["run", "endpoint"] = "run"
    missing_usage: Literal["end", "ignore"] = "end"

    @field_validator("prices", mode="before")
    @classmethod
    def _read(cls, prices: Any) -> Any:
        return read_prices(Path(prices)) if isinstance(prices, str) else prices

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_cost is not None and not self.prices:
            raise ValueError("max_cost needs prices, or nothing ever costs anything")
        limits = (self.max_requests, self.max_tokens, self.max_completion_tokens, self.max_cost)
        if not self.prices and all(limit is None for limit in limits):
            raise ValueError(
                "a budget needs a limit (max_requests, max_tokens, max_completion_tokens or max_cost), or prices"
            )
        return self


class Budget:
    """Looks before each exchange whether something is left, and adds up after it.

    What those under way will use is not known: each is taken to use as much as the answers so far on average, and
    those that might not fit wait for them. So the limits on tokens and money are exceeded by no more than what the
    exchanges then under way use, and that on requests not at all. The run is ended when none is under way any more:
    their answers are not lost.
    """

    def __init__(self, parameters: BudgetParameters, context: Context) -> None:
        self._parameters = parameters
        self._ends = context.ends
        self._stats = context.stats
        self._address = context.upstream.address
        self._ledger = ledger_of(context)
        self._spent = self._ledger.of(context.name)
        self._known = Spent()
        self._prices = PriceTable(parameters.prices) if parameters.prices else None
        if self._prices is not None:
            self._ledger.use_currency(parameters.currency)
            self._stats.use_currency(parameters.currency)

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Send the request if the budget has room for it."""
        if not request.is_counted:
            return await call_next(request)
        price = self._price_of(request)
        await self._admit()
        if self._ends.reason is not None:
            return ended_response(self._ends)
        spent = self._spent
        spent.requests += 1
        spent.in_flight += 1
        self._ledger.wake_next()
        try:
            response = await call_next(request)
        except UpstreamFailure as failure:
            if kind_of_failure(failure) == "unreachable":
                spent.requests -= 1
            self._settled()
            raise
        except BaseException:
            self._settled()
            raise
        if response.exchange is None:
            self._settled()
        else:
            response.exchange.when_over(partial(self._over, price))
        return response

    def _price_of(self, request: Request) -> Price | None:
        """The price of the request's model; ends the run when it has none and money is limited."""
        if self._prices is None:
            return None
        try:
            document = request.json()
        except ValueError:
            document = None
        model = document.get("model") if isinstance(document, dict) else None
        price = self._prices.of(model) if isinstance(model, str) else None
        if price is None and self._parameters.max_cost is not None:
            self._ends.end(
                f"the budget has max_cost, but no price for the model {model!r} that was asked for. Add it to prices, "
                "and start again to go on",
                "budget",
                status=_REFUSAL,
            )
        return price

    async def _admit(self) -> None:
        """Return when there is room for one more exchange, or the run has been ended."""
        while self._ends.reason is None:
            spent = self._ledger.total() if self._parameters.scope == "run" else self._spent
            lacking = self._lacking(spent)
            if lacking is None:
                return
            if not spent.in_flight:
                self._end(lacking, spent)
                break
            await self._ledger.change()
        self._ledger.wake_next()

    def _lacking(self, spent: Spent) -> str | None:
        """Which limit leaves no room for one more; None when all do."""
        parameters = self._parameters
        # As many as are under way, each as large as the mean of the answers so far.
        share = 1 + spent.in_flight / spent.answers if spent.answers else 1.0
        if parameters.max_requests is not None and spent.requests >= parameters.max_requests:
            return f"{spent.requests:,} of max_requests {parameters.max_requests:,}"
        if parameters.max_tokens is not None and spent.tokens * share >= parameters.max_tokens:
            return f"{spent.tokens:,} of max_tokens {parameters.max_tokens:,}"
        if (
            parameters.max_completion_tokens is not None
            and spent.completion_tokens * share >= parameters.max_completion_tokens
        ):
            return f"{spent.completion_tokens:,} of max_completion_tokens {parameters.max_completion_tokens:,}"
        if parameters.max_cost is not None and spent.cost * share >= parameters.max_cost:
            return f"{spent.cost:.4f} of max_cost {parameters.max_cost:g} {parameters.currency}"
        return None

    def _end(self, lacking: str, spent: Spent) -> None:
        self._ends.end(
            f"the budget is used up: {lacking}. {spent.answers:,} answers are kept; raise it and start the same "
            "command again to go on",
            "budget",
            status=_REFUSAL,
        )

    def _over(self, price: Price | None, exchange: Exchange) -> None:
        """Add up what an exchange took."""
        facts, spent, known = exchange.facts, self._spent, self._known
        is_reported = facts.prompt_tokens is not None or facts.completion_tokens is not None
        if is_reported:
            spent.prompt_tokens += facts.prompt_tokens or 0
            spent.completion_tokens += facts.completion_tokens or 0
        elif facts.total_tokens is not None:
            spent.prompt_tokens += facts.total_tokens
        if price is not None and (is_reported or exchange.is_usable):
            exchange.cost = cost = price.cost(facts)
            if cost is not None:
                spent.cost += cost
                self._stats.spent(cost)
        if exchange.is_usable:
            spent.answers += 1
            known.answers += 1
            known.prompt_tokens += facts.prompt_tokens or facts.total_tokens or 0
            known.completion_tokens += facts.completion_tokens or 0
            known.cost += exchange.cost or 0.0
            if self._is_unknown(price, exchange):
                self._end_for_missing_usage()
        elif exchange.failure is not None and not is_reported and facts.total_tokens is None and known.answers:
            self._charge_mean(has_price=price is not None)
        self._settled()

    def _charge_mean(self, *, has_price: bool) -> None:
        """An answer began that nobody knows the size of, since it broke off: take it to be like the others."""
        spent, known = self._spent, self._known
        spent.prompt_tokens += round(known.prompt_tokens / known.answers)
        spent.completion_tokens += round(known.completion_tokens / known.answers)
        if has_price:
            cost = known.cost / known.answers
            spent.cost += cost
            self._stats.spent(cost)

    def _is_unknown(self, price: Price | None, exchange: Exchange) -> bool:
        """Whether a limit cannot be kept because the answer reports no tokens."""
        parameters, facts = self._parameters, exchange.facts
        if parameters.missing_usage == "ignore":
            return False
        if parameters.max_cost is not None and price is not None and exchange.cost is None:
            return True
        has_total = facts.total_tokens is not None or facts.prompt_tokens is not None
        return (parameters.max_tokens is not None and not has_total and facts.completion_tokens is None) or (
            parameters.max_completion_tokens is not None
            and facts.completion_tokens is None
            and facts.prompt_tokens is None
        )

    def _end_for_missing_usage(self) -> None:
        self._ends.end(
            f"an answer of {self._address} does not report its tokens, so the budget cannot be kept. Streams report "
            "them when asked to (stream_options: {include_usage: true}); with missing_usage: ignore such answers "
            "count for nothing",
            "budget",
            status=_REFUSAL,
        )

    def _settled(self) -> None:
        self._spent.in_flight -= 1
        self._ledger.changed()
