"""What is known about one exchange with an endpoint, whoever of the chain wants to know."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from nemo_evaluator.adapters.answers import AnswerFacts
from nemo_evaluator.adapters.redaction import redact_text

_log = logging.getLogger(__name__)

WhenOver = Callable[["Exchange"], None]


@dataclass(slots=True)
class Exchange:
    """One exchange: made with the endpoint just now, or kept in the store from before.

    It is over when the answer is complete, has failed, or nobody waits for it any more. For a streamed answer that is
    later than the response's way back through the chain, so interceptors that look at the end use `when_over`.

    Attributes:
        source: who answered.
        status: what the endpoint said.
        facts: tokens, finish reasons and the like; complete when the exchange is over.
        flaw: why an answer with a status of success cannot be used; None when it can.
        failure: why the answer never became complete; None when it did.
        seconds: from sending the request to the last byte.
        first_byte_seconds: from sending the request to the first byte of the body.
        sent: bytes of the request's body.
        received: bytes of the answer's body, as on the wire.
        body: the answer's body as on the wire, once it is over; kept for requests to the model only.
        cost: what it cost, in the currency of the price table; None when that is not known.
        is_over: whether it is.
    """

    status: int
    source: Literal["endpoint", "store"] = "endpoint"
    facts: AnswerFacts = field(default_factory=AnswerFacts)
    flaw: str | None = None
    failure: str | None = None
    seconds: float = 0.0
    first_byte_seconds: float = 0.0
    sent: int = 0
    received: int = 0
    body: bytes = b""
    cost: float | None = None
    is_over: bool = False
    _waiting: list[WhenOver] = field(default_factory=list, repr=False)

    @property
    def is_usable(self) -> bool:
        """Whether it ended with an answer of success that has what such an answer must have."""
        return self.is_over and self.failure is None and self.flaw is None and 200 <= self.status < 300  # noqa: PLR2004  success

    def when_over(self, callback: WhenOver) -> None:
        """Call `callback` with this exchange at its end; at once when it is over. It must not block."""
        if self.is_over:
            callback(self)
        else:
            self._waiting.append(callback)

    def end(self, failure: str | None = None) -> None:
        """It is over; the first call counts."""
        if self.is_over:
            return
        self.is_over = True
        self.failure = failure
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            try:
                callback(self)
            except Exception as error:  # noqa: BLE001  a third party's fault must not keep slots and budgets from the others
                _log.error("a callback at the end of an exchange failed: %s", redact_text(repr(error)))
