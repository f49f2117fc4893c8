"""The contract of a third party's interceptor, checked before anything starts."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import Interceptor
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.registration import Registration
from nemo_evaluator.adapters.registry import Kind
from nemo_evaluator.errors import MisconfigurationError

OLD_INTERFACE = (
    "It is written for the older interface: write `async def __call__(self, request, call_next)` instead, which may "
    "change the request, returns `await call_next(request)`, and may change that response; register_for_adapter is "
    "imported from nemo_evaluator.adapters"
)
_OLD_METHODS = ("intercept_request", "intercept_response", "post_eval_hook")

Maker = Callable[[Any, Context], Interceptor]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThirdParty(Kind):
    """An interceptor that somebody else wrote.

    Attributes:
        name: as registered.
        description: as registered.
        origin: where it was found, for messages.
        module: the module that defines it.
        file: the file that defines it; None when there is none.
        sha256: of that file.
        target: the class or function.
    """

    name: str
    description: str
    origin: str
    module: str
    file: Path | None
    sha256: str | None
    target: Any

    def as_data(self) -> dict[str, Any]:
        """What names it in the results of a run."""
        return {
            "name": self.name,
            # The names under which files of a folder are loaded mean nothing outside of this process.
            "module": None if self.module.startswith("_") else self.module,
            "file": str(self.file) if self.file else None,
            "sha256": self.sha256,
        }


def third_party(registration: Registration, target: Any, *, place: str) -> ThirdParty:
    """What is known about a registered class or function.

    Args:
        registration: what it was registered as.
        target: the class or function.
        place: where it was found, for messages.

    Raises:
        MisconfigurationError: it is not an interceptor; says what is missing.
    """
    what = f"{place}: the interceptor {registration.name!r}"
    if inspect.isclass(target):
        parameters, make = _of_class(target, what)
    else:
        _check_call(target, what, "it", bound=False)
        parameters, make = Parameters, lambda _parameters, _context: target
    module = str(getattr(target, "__module__", ""))
    text = getattr(sys.modules.get(module), "__file__", None)
    file = Path(text).resolve() if text else None
    return ThirdParty(
        parameters=parameters,
        make=make,
        stage=registration.stage,
        name=registration.name,
        description=registration.description,
        origin=place,
        module=module,
        file=file,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest() if file and file.is_file() else None,
        target=target,
    )


def _of_class(target: type[Any], what: str) -> tuple[type[BaseModel], Maker]:
    # Asked of the class, `__call__` would be what makes instances.
    call = next((vars(base)["__call__"] for base in target.__mro__ if "__call__" in vars(base)), None)
    if call is None:
        older = any(hasattr(target, name) for name in _OLD_METHODS)
        lacks = "has no method `async def __call__(self, request, call_next)`"
        raise MisconfigurationError(f"{what} {lacks}. {OLD_INTERFACE}" if older else f"{what} {lacks}")
    _check_call(call, what, "its __call__", bound=True)
    parameters = getattr(target, "Params", Parameters)
    if not (inspect.isclass(parameters) and issubclass(parameters, BaseModel)):
        raise MisconfigurationError(f"{what}: its Params must be a pydantic model")
    count = _count_arguments(target, what)

    def make(values: Any, context: Context) -> Interceptor:
        try:
            made: Interceptor = target(*(values, context)[:count])
        except Exception as error:  # whatever others' code raises, the user gets one sentence about it
            raise MisconfigurationError(f"{what} cannot be made: {type(error).__name__}: {error}") from error
        return made

    return parameters, make


def _count_arguments(target: type[Any], what: str) -> int:
    """How many of (parameters, context) its constructor takes."""
    signature = inspect.signature(target)
    for arguments in ((None, None), (None,), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments)
    raise MisconfigurationError(
        f"{what}: its __init__ must take (self, params) or (self, params, context), not {signature}"
    )


def _check_call(function: Any, what: str, which: str, *, bound: bool) -> None:
    if not callable(function):
        raise MisconfigurationError(f"{what} must be a class or an async function, not a {type(function).__name__}")
    expected = "async def __call__(self, request, call_next)" if bound else "async def …(request, call_next)"
    if not inspect.iscoroutinefunction(function):
        raise MisconfigurationError(f"{what}: {which} must be a coroutine function: `{expected}`")
    signature = inspect.signature(function)
    try:
        signature.bind(*[None] * (3 if bound else 2))
    except TypeError:
        raise MisconfigurationError(f"{what}: {which} must be `{expected}`, not {signature}") from None
