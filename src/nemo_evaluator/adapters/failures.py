"""What is wrong with an exchange when it is the endpoint's fault."""

from __future__ import annotations

SHOULD_RETRY = "x-should-retry"
"""Header by which endpoints tell OpenAI's clients whether to repeat a request, whatever its status."""


class UpstreamFailure(Exception):  # noqa: N818  a failed exchange with the endpoint, not an error of this program
    """The endpoint gave no complete answer, or one that cannot be read.

    `status` is what the harness is told (502, or 504 when time ran out), `code` the machine-readable reason;
    `is_counted` says that the statistics have it already, `is_last_attempt` that it was repeated in vain.
    """

    def __init__(self, message: str, *, code: str, status: int = 502) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.is_counted = False
        self.is_last_attempt = False
