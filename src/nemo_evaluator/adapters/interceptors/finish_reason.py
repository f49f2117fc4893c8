"""`finish_reason`: counts the samples whose answers were cut, refused or empty."""

from __future__ import annotations

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.sample import sample_of


class FinishReasonParameters(Parameters):
    """It has none of its own."""


class FinishReason:
    """Notes the end of each usable answer for its sample, also of one from the store: a resumed run counts alike.

    The numbers stand in `coverage.requests.samples`; docs/coverage.md says what they mean.
    """

    def __init__(self, context: Context) -> None:
        self._stats = context.stats

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Look at the answer when it is complete."""
        # Links further in may change the body; the sample is what the harness asked.
        sample = sample_of(request) if request.is_counted else ""
        response = await call_next(request)
        exchange = response.exchange
        if sample and exchange is not None:
            stats = self._stats
            exchange.when_over(lambda over: stats.outcome(sample, over.facts) if over.is_usable else None)
        return response
