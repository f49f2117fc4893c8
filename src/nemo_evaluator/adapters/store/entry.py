"""One exchange on its way into the store."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.store.identity import Identity
from nemo_evaluator.adapters.store.packing import Told


@dataclass(slots=True, kw_only=True)
class NewEntry:
    """What is to be stored. Attributes with the names of those of `record.Record` mean the same.

    Attributes:
        identity: by which it is found when it may be given again; None for entries that are for looking at only.
        facts: what the answer says about itself.
        request: the request's body; None when it is not kept.
        response: the answer's body as on the wire; None when it is not kept.
        told: how it ended for the harness, when it is not usable; see `packing.Content`.
        headers: those of the answer that are kept.
        origin: `STORE:ID` of the entry of another store that it is a copy of.
    """

    upstream: str
    address: str
    time: float
    status: int
    is_usable: bool
    sample: str
    identity: Identity | None = None
    request_id: str = ""
    attempt: int = 1
    problem: str | None = None
    seconds: float = 0.0
    first_byte_seconds: float = 0.0
    cost: float | None = None
    facts: AnswerFacts = field(default_factory=AnswerFacts)
    request: bytes | None = None
    response: bytes | None = None
    told: Told | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    request_bytes: int = 0
    response_bytes: int = 0
    origin: str | None = None
