"""The base of every interceptor's parameters."""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Parameters(BaseModel):
    """Parameters of one interceptor; a null stands for the default of a parameter that has no meaning for it.

    `log_level` is part of the compatible interface and has no effect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    log_level: str = "INFO"

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None or cls._takes_null(name)}

    @classmethod
    def _takes_null(cls, name: str) -> bool:
        field = cls.model_fields.get(name)
        # Strings with validators of their own see a null before they refuse it: only the types tell.
        return field is None or NoneType in get_args(field.annotation)
