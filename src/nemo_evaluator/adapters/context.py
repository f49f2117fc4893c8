"""What a run gives to its interceptors beside their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from nemo_evaluator.adapters.messages import MODEL
from nemo_evaluator.adapters.stats import StatsRecorder
from nemo_evaluator.adapters.upstream import Upstream

EndKind = Literal["endpoint", "outage", "budget", "store", "interceptor"]
"""Whose doing the end of a run is."""

Shared = TypeVar("Shared")


@dataclass(slots=True, kw_only=True)
class Ends:
    """The early end of a run, asked for by an interceptor: the first reason counts.

    Attributes:
        reason: a sentence for the user; None while the run goes on.
        kind: whose doing it is.
        status: what later requests of the harness are refused with.
        told: called once, from the proxy's thread, when the first reason comes.
    """

    reason: str | None = None
    kind: EndKind | None = None
    status: int = 403
    told: Callable[[str], None] | None = None

    def end(self, reason: str, kind: EndKind, *, status: int = 403) -> None:
        """End the run; what was answered stays, further requests are refused with `status`."""
        if self.reason is None:
            self.reason, self.kind, self.status = reason, kind, status
            if self.told is not None:
                self.told(reason)


@dataclass(slots=True, kw_only=True)
class Context:
    """The surroundings of one chain.

    Attributes:
        upstream: the endpoint at its end.
        name: that endpoint's name: `model`, or that of a judge.
        output_dir: the folder of the run; None when there is none.
        stats: counts of this chain.
        ends: by which an interceptor may end the run.
        secrets: those that the endpoint gets and the harness does not know, such as a judge's key; endpoints like to
            repeat them in errors.
        environ: the environment, in which values of secrets are found by name.
        replay_only: whether answers may come from the store only.
        keeps_records: whether something in this chain stores each request with its last answer.
        shared_objects: see `shared`.
    """

    upstream: Upstream
    name: str = MODEL
    output_dir: Path | None = None
    stats: StatsRecorder = field(default_factory=StatsRecorder)
    ends: Ends = field(default_factory=Ends)
    secrets: frozenset[str] = frozenset()
    environ: Mapping[str, str] = field(default_factory=dict)
    replay_only: bool = False
    keeps_records: bool = False
    shared_objects: dict[tuple[type, str], Any] = field(default_factory=dict)

    def shared(self, kind: type[Shared], key: str, make: Callable[[], Shared]) -> Shared:
        """The one object of `kind` for `key` in this run, whichever chain asks: a limiter per endpoint, for example.

        Objects with a method `close` are closed when the proxy stops, after all chains.
        """
        if (kind, key) not in self.shared_objects:
            self.shared_objects[kind, key] = make()
        found: Shared = self.shared_objects[kind, key]
        return found
