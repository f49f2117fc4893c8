"""The answer to a request that comes too late: the run has been ended."""

from __future__ import annotations

from nemo_evaluator.adapters.context import Ends
from nemo_evaluator.adapters.messages import Response, error_response


def ended_response(ends: Ends) -> Response:
    """What later requests get too; for those that were waiting inside of the chain when the end came."""
    return error_response(ends.status, ends.reason or "the run has ended", kind="run_ended", code=ends.kind)
