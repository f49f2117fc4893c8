"""Parameters of the interceptors and hooks that this version accepts but does not run.

None of them changes a request, an answer or a score. Their names, parameters and defaults are those of the
compatible interface.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nemo_evaluator.adapters.parameters import Parameters

Count = Annotated[int, Field(ge=0)]
Interval = Annotated[int, Field(ge=1)]


class PostEvalReportParameters(Parameters):
    """Writes a report of requests and answers after the run."""

    report_types: tuple[Literal["html", "json"], ...] = ("html",)
    html_report_size: Count | None = None
