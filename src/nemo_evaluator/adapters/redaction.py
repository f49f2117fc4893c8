"""Keeps secrets out of files, logs and error texts."""

from __future__ import annotations

import contextlib
import json
import re
from base64 import b64decode
from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from nemo_evaluator.adapters.switches import SWITCHES
from nemo_evaluator.api.adapter_config import AdapterConfig, ChainConfig, InterceptorConfig, UpstreamConfig

REDACTED = "<redacted>"
AnyChain = TypeVar("AnyChain", bound=ChainConfig)


class Secret(str):
    """Text that is a secret whatever it is called by, such as the value of a header that somebody added."""

    __slots__ = ()


_CREDENTIAL_NAME = re.compile(
    r"(?:^|[-_.])(?:api[-_]?key|key|token|secret|password|passwd|pwd|auth|authorization|credential|credentials"
    r"|signature|sig|cookie)(?:[-_.]?(?:value|header|[0-9]+))?$",
    re.IGNORECASE,
)
_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_KEY_SHAPED = re.compile(
    r"(?:\b(?:sk|pk|rk|nvapi|hf|ghp|gho|glpat|xox[a-z]|AKIA|AIza|Bearer|Basic)[-_ ]?[A-Za-z0-9._~+/=-]{12,})"
    r"|(?:\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]+)"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key")
_SHORTEST_SECRET = 4
_LONGEST_MESSAGE = 300


def is_credential_name(name: str) -> bool:
    """Whether a header, parameter or key of this name usually holds a secret."""
    return _CREDENTIAL_NAME.search(_CAMEL_HUMP.sub("-", name)) is not None


def redact_url(url: str) -> str:
    """`url` with its user information and the values of credential-like query parameters hidden."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return REDACTED
    userinfo, separator, address = parts.netloc.rpartition("@")
    netloc = f"{REDACTED}@{address}" if separator and userinfo else address
    query = "&".join(_redact_pair(pair) for pair in parts.query.split("&")) if parts.query else ""
    return parts._replace(netloc=netloc, query=query).geturl()


def _redact_pair(pair: str) -> str:
    name, separator, value = pair.partition("=")
    return f"{name}={REDACTED}" if separator and value and is_credential_name(unquote(name)) else pair


def redact(config: AdapterConfig) -> AdapterConfig:
    """A copy of `config` that may be written to files: all values of `headers_to_add`, credentials in URLs, and values
    under credential-like names are replaced by `<redacted>`.
    """  # noqa: D205  one sentence, too long for one line
    redacted = _redacted_chain(config)
    update = {
        "api_url": config.api_url and redact_url(config.api_url),
        "post_eval_hooks": [redact_interceptor(entry) for entry in config.post_eval_hooks],
        "upstreams": {name: _redact_upstream(upstream) for name, upstream in config.upstreams.items()},
    }
    return redacted.model_copy(update={name: value for name, value in update.items() if config.was_changed(name)})


def _redact_upstream(upstream: UpstreamConfig) -> UpstreamConfig:
    redacted = _redacted_chain(upstream)
    return redacted.model_copy(update={"url": redact_url(upstream.url)}) if upstream.url else redacted


def _redacted_chain(config: AnyChain) -> AnyChain:
    redacted: dict[str, Any] = {
        # Values of added headers are mostly keys of gateways, under any name: none is shown.
        "headers_to_add": _hidden(config.headers_to_add),
        "params_to_add": _redact_value(config.params_to_add),
        "progress_tracking_url": config.progress_tracking_url and redact_url(config.progress_tracking_url),
        "interceptors": [redact_interceptor(entry) for entry in config.interceptors],
    }
    for name in SWITCHES:
        parameters = getattr(config, name)
        if isinstance(parameters, dict):
            redacted[name] = {key: _redact_parameter(key, value) for key, value in parameters.items()}
    return config.model_copy(
        deep=True, update={name: value for name, value in redacted.items() if config.was_changed(name)}
    )


def redact_interceptor(entry: InterceptorConfig) -> InterceptorConfig:
    """A copy of one entry of a chain that may be written to files."""
    config = {key: _redact_parameter(key, value) for key, value in entry.config.items()}
    return entry.model_copy(update={"config": config})


def _redact_parameter(key: str, value: Any) -> Any:
    if key == "headers_to_add":
        return _hidden(value)
    if key == "from_env" and isinstance(value, dict):
        # Names of variables, which are no secrets; a key that stands there by mistake is one.
        return {name: item if _VARIABLE.fullmatch(str(item)) else REDACTED for name, item in value.items()}
    return _redact_entry(key, value)


def _hidden(headers: Any) -> Any:
    return dict.fromkeys(headers, REDACTED) if isinstance(headers, dict) else headers


def _redact_entry(key: str, value: Any) -> Any:
    if isinstance(value, str):
        if is_credential_name(key) and not key.startswith(("start_", "end_")):
            return REDACTED
        return redact_url(value) if "://" in value else value
    return _redact_value(value)


def _redact_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redact_entry(str(key), item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact_value(item) for item in value]
    return value


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """A short form of `text` for messages: known `secrets` and what looks like a key are hidden, one line, cut."""
    text = " ".join(hide_secrets(text, secrets).split())
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def hide_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with known `secrets` and what looks like a key hidden."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, REDACTED)
    return _KEY_SHAPED.sub(REDACTED, text)


def is_secret_header(name: str, value: str) -> bool:
    """Whether a header holds a secret: by its name, or because its value is known to be one."""
    return isinstance(value, Secret) or name.lower() in _SECRET_HEADERS or is_credential_name(name)


def secrets_in_authorization(authorization: str | None) -> frozenset[str]:
    """The secrets in the value of an `Authorization` header: all of it, and the credential in it."""
    if not authorization:
        return frozenset()
    scheme, _, credential = authorization.partition(" ")
    found = {authorization, credential or authorization}
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):  # binascii.Error and UnicodeDecodeError among them
            found.add(b64decode(credential).decode().partition(":")[2])
    return frozenset(secret for secret in found if len(secret) >= _SHORTEST_SECRET)


def secrets_of(headers: Iterable[tuple[str, str]], url: str) -> set[str]:
    """The secrets that a request carries in its headers and URL; an endpoint may repeat them in its errors."""
    found: set[str] = set()
    for name, value in headers:
        if is_secret_header(name, value):
            found.update((value, value.partition(" ")[2] or value))
    found.update(value for name, value in parse_qsl(urlsplit(url).query) if is_credential_name(name))
    return found


def secrets_within(value: Any) -> frozenset[str]:
    """The texts under credential-like names in parameters of a request, as they are and as JSON may write them."""
    found: set[str] = set()
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and is_credential_name(str(key)):
                found |= {item, json.dumps(item)[1:-1], json.dumps(item, ensure_ascii=False)[1:-1]}
            else:
                found |= secrets_within(item)
    elif isinstance(value, list):
        found = found.union(*map(secrets_within, value))
    return frozenset(found)
