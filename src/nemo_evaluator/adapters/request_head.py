"""Heads of the requests to the endpoint."""

from __future__ import annotations

import re
from functools import lru_cache

from nemo_evaluator.adapters.messages import DECODABLE, HOP_BY_HOP, Request
from nemo_evaluator.adapters.sample_header import SAMPLE_HEADER
from nemo_evaluator.adapters.upstream import Upstream

_DROPPED = HOP_BY_HOP | {"host", "content-length", "expect", SAMPLE_HEADER.lower(), "x-samples-planned"}
"""Headers of requests that end here; the last two tell the proxy which sample a request is about, and of how many."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_CODINGS, _AUTHORIZATION = "accept-encoding", "authorization"


class RequestHeads:
    """Writes the heads of requests to one endpoint.

    Args:
        upstream: the endpoint.
        authorization: goes in place of the harness's `Authorization`; None to send what the harness sends.
        proxy_authorization: for an HTTP proxy before the endpoint; None when there is none, or it asks for none.
        is_absolute: whether the request line has the whole URL, as HTTP proxies want it (RFC 9112, 3.2.2).
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        authorization: str | None,
        proxy_authorization: str | None = None,
        is_absolute: bool = False,
    ) -> None:
        self._origin = upstream.origin
        self._host = upstream.origin.partition("://")[2]
        self._is_absolute = is_absolute
        self._authorization = authorization
        self._fixed = [
            f"{name}: {value}"
            for name, value in (("Authorization", authorization), ("Proxy-Authorization", proxy_authorization))
            if value is not None
        ]

    def head(self, request: Request) -> bytes:
        """The request line and the header lines, with the empty line at their end.

        Raises:
            ValueError: the request goes to another origin, or one of its headers cannot stand on the wire.
        """
        lines = [f"{request.method} {self._target(request.url)} HTTP/1.1", f"Host: {self._host}"]
        codings: list[str] = []
        for name, value in request.headers.items():
            start, special = _known(name)
            if special is None:
                lines.append(start + value)
            elif special == _CODINGS:
                codings.append(value)
            elif special == _AUTHORIZATION and self._authorization is None:
                lines.append(start + value)
        lines.append(f"Accept-Encoding: {_readable_codings(','.join(codings))}")
        lines += self._fixed
        length = len(request.body)
        if length or request.method in _WITH_BODY:
            lines.append(f"Content-Length: {length}")
        return _joined(lines)

    def _target(self, url: str) -> str:
        origin = self._origin
        target = url[len(origin) :]
        if not url.startswith(origin) or target[:1] not in ("", "/", "?"):
            raise ValueError(f"the request does not go to {origin}")
        if self._is_absolute:
            return url
        return target if target.startswith("/") else f"/{target}"


def _joined(lines: list[str]) -> bytes:
    text = "\r\n".join(lines)
    ends = len(lines) - 1
    # A line break within a header would let it say more than one thing.
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise ValueError("a header of the request holds a line break or a NUL")
    try:
        return f"{text}\r\n\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("a header of the request holds characters beyond Latin-1") from None


@lru_cache(maxsize=512)
def _known(name: str) -> tuple[str, str | None]:
    """How the line of a header begins, and None when it is sent as it is, else what is to be decided about it."""
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"the request has a header with the name {name!r}, which is not allowed")
    lower = name.lower()
    if lower in (_CODINGS, _AUTHORIZATION):
        return f"{name}: ", lower
    return f"{name}: ", "" if lower in _DROPPED else None


@lru_cache(maxsize=256)
def _readable_codings(wanted: str) -> str:
    """Those of the harness's `Accept-Encoding` that the proxy can read as well."""
    items = [item.strip() for item in wanted.split(",")]
    return ", ".join(item for item in items if item.partition(";")[0].strip().lower() in DECODABLE) or "identity"
