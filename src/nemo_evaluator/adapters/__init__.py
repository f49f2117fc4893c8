"""What a third party's interceptor is made of; the names load when they are first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemo_evaluator.adapters.context import Context
    from nemo_evaluator.adapters.interceptor import CallNext
    from nemo_evaluator.adapters.messages import Request, Response
    from nemo_evaluator.adapters.registration import register_for_adapter

_HOMES = {
    "CallNext": "interceptor",
    "Context": "context",
    "Request": "messages",
    "Response": "messages",
    "register_for_adapter": "registration",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  only when a name is used

    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = ["CallNext", "Context", "Request", "Response", "register_for_adapter"]
