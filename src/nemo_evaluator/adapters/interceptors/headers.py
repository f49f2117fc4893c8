"""`headers`: sets and removes headers of requests; values of secrets come from the environment, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import HOP_BY_HOP, Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.redaction import Secret, is_credential_name, is_secret_header, redact_text
from nemo_evaluator.errors import MisconfigurationError

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FRAMING = HOP_BY_HOP | {"host", "content-length", "content-encoding", "expect"}

Variable = Annotated[str, Field(pattern=f"^{_VARIABLE.pattern}$")]


class FromVariable(BaseModel):
    """A value that stands in an environment variable, and what is put before it, such as `Bearer `."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    env: Variable
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,15} ?$")] = ""


class FromText(BaseModel):
    """A value that is no secret and stands in the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    value: str


class HeadersParameters(Parameters):
    """Which headers are set and removed.

    `set` gives each header `{env: VARIABLE}`, with a `prefix` such as `Bearer ` if need be, or `{value: TEXT}` when the
    value is no secret; `from_env` is the short form for variables that hold all of the value.
    """

    set: dict[str, FromVariable | FromText] = Field(default={})
    from_env: dict[str, Variable] = Field(default={})
    remove: tuple[str, ...] = ()

    @field_validator("set", mode="before")
    @classmethod
    def _check_set(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: _checked(str(name), item) for name, item in value.items()}

    @field_validator("from_env", mode="before")
    @classmethod
    def _check_variables(cls, value: Any) -> Any:
        for name, item in value.items() if isinstance(value, dict) else ():
            _check_name(str(name))
            if not isinstance(item, str) or not _VARIABLE.fullmatch(item):
                raise ValueError(f"{name!r} needs the name of an environment variable, as {name}: MY_VARIABLE")
        return value

    @field_validator("remove", mode="after")
    @classmethod
    def _check_removed(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _check_name(name)
        return names

    @model_validator(mode="after")
    def _check_once(self) -> HeadersParameters:
        names = [name.lower() for name in (*self.set, *self.from_env)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the header {twice!r} is set twice; keep one of them")
        if not names and not self.remove:
            raise ValueError("nothing to do: give 'set', 'from_env' or 'remove'")
        return self


class Headers:
    """Removes headers, then sets others, on every request. Names are compared without regard to case.

    Values from the environment are secrets: they are hidden in logs, errors and files.

    Raises:
        MisconfigurationError: a variable is unset or empty, or holds what no header may hold.
    """

    def __init__(self, parameters: HeadersParameters, context: Context) -> None:
        self._remove = parameters.remove
        self._set: dict[str, str] = {
            name: item.value
            if isinstance(item, FromText)
            else Secret(item.prefix + _secret(name, item.env, context.environ))
            for name, item in parameters.set.items()
        }
        for name, variable in parameters.from_env.items():
            self._set[name] = _secret(name, variable, context.environ)

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Change the request's headers."""
        for name in self._remove:
            request.headers.popall(name, None)
        for name, value in self._set.items():
            request.headers[name] = value
        return await call_next(request)


def _checked(name: str, item: Any) -> Any:
    _check_name(name)
    if isinstance(item, int | float) and not isinstance(item, bool):
        item = str(item)
    text = item.get("value") if isinstance(item, dict) else item
    if text is None and isinstance(item, dict):
        return item
    if not isinstance(text, str) or (isinstance(item, dict) and len(item) != 1):
        raise ValueError(f"{name!r} needs {{env: VARIABLE}}, or {{value: TEXT}} when the value is no secret")
    if (
        is_credential_name(name)
        or is_secret_header(name, text)
        or redact_text(text[:200]) != " ".join(text[:200].split())
    ):
        raise ValueError(
            f"the value of {name!r} looks like a secret, and secrets do not belong into a configuration: put it into "
            f"an environment variable and write {name}: {{env: MY_VARIABLE}}"
        )
    if CONTROL.search(text):
        raise ValueError(f"the value of {name!r} has a line break or another control character: remove it")
    return {"value": text}


def _check_name(name: str) -> None:
    if not HEADER_NAME.fullmatch(name):
        # The rest of a name that is none is not shown: it may be a key.
        begin = HEADER_NAME.match(name)
        shown = f"beginning with {begin[0][:20]!r} " if begin else ""
        raise ValueError(f"a name {shown}is no header name: write names and values apart, as NAME: {{env: VARIABLE}}")
    if name.lower() in _FRAMING:
        raise ValueError(f"the header {name!r} belongs to the connection and cannot be changed: remove it")


def _secret(name: str, variable: str, environ: Mapping[str, str]) -> Secret:
    value = environ.get(variable, "").strip(" \t")
    shown = redact_text(variable)
    if not value:
        raise MisconfigurationError(
            f"headers: the value of the header {name!r} is expected in the environment variable {shown}, which is "
            f"unset or empty. Set it, or remove the header from the configuration."
        )
    if CONTROL.search(value):
        raise MisconfigurationError(
            f"headers: the environment variable {shown}, meant for the header {name!r}, has a line break or another "
            f"control character in its value. A header is one line: remove it."
        )
    return Secret(value)
