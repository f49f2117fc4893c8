"""`payload_modifier`: removes, adds and renames parameters and headers of requests."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated, Any

from pydantic import Field, field_validator

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.interceptors.headers import CONTROL, HEADER_NAME
from nemo_evaluator.adapters.json_text import to_json
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.redaction import REDACTED, Secret, secrets_within

HeaderName = Annotated[str, Field(pattern=f"^{HEADER_NAME.pattern}$")]

FRAMING_HEADERS = ("host", "content-length", "connection", "transfer-encoding")
"""Headers that belong to the connection; in `headers_to_add` they have no effect."""


class PayloadModifierParameters(Parameters):
    """What to change. Values of added headers are secrets: they never appear in files."""

    params_to_remove: list[str] | None = None
    params_to_add: dict[str, Any] | None = None
    params_to_rename: dict[str, str] | None = None
    headers_to_add: dict[str, str] | None = None
    headers_to_remove: list[str] | None = None
    headers_to_rename: dict[str, HeaderName] | None = None

    @field_validator("params_to_add", mode="after")
    @classmethod
    def _is_json(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for name, item in (value or {}).items():
            try:
                to_json(item)
            except (TypeError, ValueError):
                raise ValueError(
                    f"the value of {name!r} cannot be sent: JSON has text, finite numbers, true, false, null, lists "
                    "and mappings only"
                ) from None
        return value

    @field_validator("headers_to_add", mode="before")
    @classmethod
    def _check_values(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name, item in value.items():
            # Neither values nor the rest of a name that is none are shown: they may be keys.
            shown = HEADER_NAME.match(str(name))
            if shown is None or shown[0] != str(name):
                begin = f"beginning with {shown[0]!r} " if shown else ""
                raise ValueError(f"a name {begin}is no header name: write names and values apart, as NAME: VALUE")
            if isinstance(item, str) and CONTROL.search(item):
                raise ValueError(f"the value of {name!r} has a line break or another control character: remove it")
            if item == REDACTED:
                raise ValueError(f"the value of {name!r} was hidden when this configuration was written: give it again")
        return {
            name: str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item
            for name, item in value.items()
        }


class PayloadModifier:
    """Changes parameters in the order remove (at every depth), add, rename (both at the top), and headers in the order
    remove, rename, add.

    Parameters are those of POST requests; one whose body is not a JSON object fails when parameters are to be changed.
    """  # noqa: D205  one sentence, too long for one line

    def __init__(self, parameters: PayloadModifierParameters, context: Context) -> None:
        context.secrets |= secrets_within(parameters.params_to_add)
        self._remove = frozenset(parameters.params_to_remove or ())
        self._add = parameters.params_to_add or {}
        self._rename = parameters.params_to_rename or {}
        self._headers_to_remove = parameters.headers_to_remove or []
        self._headers_to_rename = parameters.headers_to_rename or {}
        self._headers_to_add = {
            # Mostly keys of gateways, under any name.
            name: Secret(value)
            for name, value in (parameters.headers_to_add or {}).items()
            if name.lower() not in FRAMING_HEADERS
        }

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Change the request."""
        if request.is_counted and (self._remove or self._add or self._rename):
            body = request.json()
            if not isinstance(body, dict):
                raise TypeError("the request's body is not a JSON object; its parameters cannot be changed")
            request.replace_json(self._changed(body))
        self._change_headers(request)
        return await call_next(request)

    def _changed(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._remove:
            body = _without(body, self._remove)
        # A copy: interceptors further in may change what is in it.
        body.update(deepcopy(self._add))
        if not self._rename:
            return body
        return {self._rename.get(key, key): value for key, value in body.items()}

    def _change_headers(self, request: Request) -> None:
        for name in self._headers_to_remove:
            request.headers.popall(name, None)
        for old, new in self._headers_to_rename.items():
            for value in request.headers.popall(old, []):
                request.headers.add(new, value)
        for name, value in self._headers_to_add.items():
            request.headers[name] = value


def _without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, names) for key, item in value.items() if key not in names}
    if isinstance(value, list):
        return [_without(item, names) for item in value]
    return value
