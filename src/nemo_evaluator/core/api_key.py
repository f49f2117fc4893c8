"""The key of an endpoint: configured by the name of an environment variable, never shown."""

from __future__ import annotations

from collections.abc import Mapping

from nemo_evaluator.errors import MisconfigurationError
from nemo_evaluator.shell import is_variable_name


def read_key(
    name: str | None,
    environ: Mapping[str, str],
    *,
    setting: str = "--api_key_name, target.api_endpoint.api_key_name",
) -> str | None:
    """The key in the variable `name`; None when no name is given. Errors say that `setting` names it.

    Raises:
        MisconfigurationError: the variable is unset or empty, or its value cannot stand in an HTTP header.
    """
    if name is None:
        return None
    if not is_variable_name(name):
        raise MisconfigurationError(
            "api_key_name must be the name of an environment variable (letters, digits, _), not a key itself"
        )
    place = f"the environment variable {name} ({setting})"
    value = environ.get(name)
    if value is None:
        raise MisconfigurationError(f"{place} is not set; export it, or in a container pass it on with -e {name}")
    if not value.strip():
        raise MisconfigurationError(f"{place} is empty; it must hold the key of the endpoint")
    if "\n" in value or "\r" in value:
        raise MisconfigurationError(f"{place} holds a line break (its value is not shown); set it without")
    if value != value.strip() or not value.isascii() or not value.isprintable():
        raise MisconfigurationError(
            f"{place} holds spaces at an end, or characters that no key has (its value is not shown); set it anew"
        )
    return value
