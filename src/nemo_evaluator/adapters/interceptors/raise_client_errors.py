"""`raise_client_errors`: one refused request ends the run, instead of thousands being refused one by one."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters

Status = Annotated[int, Field(ge=100, le=599)]


class RaiseClientErrorsParameters(Parameters):
    """Which statuses end the run: those listed, else those in the range; excluded ones never do."""

    exclude_status_codes: tuple[Status, ...] | None = (408, 429)
    status_codes: tuple[Status, ...] | None = None
    status_code_range_start: Status | None = 400
    status_code_range_end: Status | None = 499

    @model_validator(mode="after")
    def _check(self) -> Self:
        both = set(self.exclude_status_codes or ()) & set(self.status_codes or ())
        if both:
            raise ValueError(f"status_codes and exclude_status_codes both have {min(both)}")
        start, end = self.status_code_range_start, self.status_code_range_end
        if start is not None and end is not None and start >= end:
            raise ValueError(f"status_code_range_start ({start}) must be less than status_code_range_end ({end})")
        return self

    def ends_the_run(self, status: int) -> bool:
        """Whether an answer of this status does."""
        if status in (self.status_codes or ()):
            return True
        if status in (self.exclude_status_codes or ()):
            return False
        start, end = self.status_code_range_start, self.status_code_range_end
        if start is None and end is None:
            return False
        return (start is None or start <= status) and (end is None or status <= end)


class RaiseClientErrors:
    """The first matching answer of the endpoint ends the run. It is counted and reaches the harness unchanged; every
    further request is refused with the same status, and never sent. Errors that the proxy or another interceptor made
    are none of the endpoint's answers.
    """  # noqa: D205  one sentence and its consequence

    def __init__(self, parameters: RaiseClientErrorsParameters, context: Context) -> None:
        self._parameters = parameters
        self._name = context.name
        self._ends = context.ends

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Watch the answer's status."""
        response = await call_next(request)
        is_of_endpoint = response.exchange is not None and response.exchange.source == "endpoint"
        if request.is_counted and is_of_endpoint and self._parameters.ends_the_run(response.status):
            try:
                # The end of the run may stop the harness: what the endpoint said must be there before.
                await response.read_raw()
            finally:
                self._ends.end(
                    f"the endpoint {self._name!r} answered {response.status}, which raise_client_errors makes the end "
                    "of the run",
                    "endpoint",
                    status=response.status,
                )
        return response
