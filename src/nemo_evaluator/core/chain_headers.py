"""The headers that a chain gives to requests, for those who ask the endpoint without the chain."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from multidict import CIMultiDict

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.interceptor import NamedInterceptor, compose
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.registry import BUILT_IN, check
from nemo_evaluator.adapters.route import Route

_SETTING_HEADERS = ("headers", "payload_modifier")


def headers_of_chain(route: Route, sent: Mapping[str, str], *, environ: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request that had `sent` when it came, after the chain's own interceptors that set headers.

    Args:
        route: the endpoint and its chain.
        sent: headers by name.
        environ: where values of secrets are looked up.

    Raises:
        MisconfigurationError: a variable that a header's value comes from is unset.
    """
    context = Context(upstream=route.upstream, name=route.name, environ=environ)
    links = []
    for entry in route.chain:
        make = BUILT_IN[entry.name].make if entry.name in _SETTING_HEADERS else None
        if make is not None:
            parameters = check(entry, place="adapter_config", known=BUILT_IN)
            links.append(NamedInterceptor(entry.name, make(parameters, context)))
    if not links:
        return dict(sent)

    async def endpoint(request: Request) -> Response:
        return Response(200, request.headers, b"{}")

    async def ask() -> Response:
        return await compose(links, endpoint)(Request("POST", route.upstream.url, CIMultiDict(sent), b"{}"))

    return dict(asyncio.run(ask()).headers)
