"""The decorator by which a third party makes an interceptor known by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

Stage = Literal["harness", "store", "transport"]
"""Where a link stands. Those that change requests or answers for the harness are outermost. Then comes the store, which
keeps what the endpoint sent, then those that decide how an endpoint is asked. Within a stage the order of the list
counts."""

STAGES: tuple[Stage, ...] = get_args(Stage)

_MARK = "__nemo_evaluator_registration__"
Registered = TypeVar("Registered")


@dataclass(frozen=True, slots=True)
class Registration:
    """What the decorator was told: the name in configurations, what for, and where in the chain."""

    name: str
    description: str
    stage: Stage


def register_for_adapter(
    name: str, description: str = "", *, stage: Stage = "harness"
) -> Callable[[Registered], Registered]:
    """Make a class or a function known as the interceptor `name`.

    A class has an optional nested pydantic model `Params`, takes an instance of it as its only argument (or as the
    first of two, the second being the `Context`), and answers by `async __call__(self, request, call_next)`. A function
    is `async` itself, and takes `(request, call_next)`. Nothing is changed in what is decorated.

    Args:
        name: what configurations call it.
        description: one sentence.
        stage: `harness`, outside of the store; `store`; or `transport`, between the store and the endpoint.

    Raises:
        ValueError: the name is empty or holds white space, or there is no such stage.
    """
    if str(name).split() != [name]:
        raise ValueError(f"the name of an interceptor must be text without white space, not {name!r}")
    if stage not in STAGES:
        raise ValueError(f"the stage of the interceptor {name!r} must be one of {', '.join(STAGES)}, not {stage!r}")
    registration = Registration(name, description, stage)

    def register(decorated: Registered) -> Registered:
        setattr(decorated, _MARK, registration)
        return decorated

    return register


def registration_of(value: Any) -> Registration | None:
    """What `value` was registered as; None when it was not itself (what a class inherits does not count)."""
    found = getattr(value, "__dict__", {}).get(_MARK)
    return found if isinstance(found, Registration) else None
