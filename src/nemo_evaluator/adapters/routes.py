"""From an evaluation to the endpoints that its proxy stands in front of: the model's, and those of judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nemo_evaluator.adapters import flags
from nemo_evaluator.adapters.chain import check_endpoint_type, names, resolve_chain
from nemo_evaluator.adapters.discovery import discover_interceptors
from nemo_evaluator.adapters.judges import judge_parameters, usual_parameter
from nemo_evaluator.adapters.messages import MODEL
from nemo_evaluator.adapters.post_eval_report import report_settings
from nemo_evaluator.adapters.redaction import REDACTED
from nemo_evaluator.adapters.registration import STAGES
from nemo_evaluator.adapters.registry import BUILT_IN, ENDPOINT
from nemo_evaluator.adapters.route import Route
from nemo_evaluator.adapters.upstream import DEFAULT_REQUEST_TIMEOUT, Upstream
from nemo_evaluator.api.adapter_config import AdapterConfig, InterceptorConfig, UpstreamConfig
from nemo_evaluator.api.api_dataclasses import Evaluation
from nemo_evaluator.errors import MisconfigurationError
from nemo_evaluator.shell import is_variable_name

_SHARED = ("caching", "trace", "budget")
"""Links that judges have like the model, unless they say otherwise: one store and one budget for the run."""


@dataclass(frozen=True, slots=True)
class _Further:
    """An endpoint beside the model's, before it is a route."""

    name: str
    config: UpstreamConfig
    parameter: tuple[str, ...]


def resolve_routes(evaluation: Evaluation, output_dir: str | Path) -> tuple[Route, ...]:
    """The endpoints of a run with their chains, the model's first.

    Nothing is started. Judges are those of `adapter_config.upstreams`, and those whose URL stands in one of the
    parameters that published harnesses use.

    Args:
        evaluation: the resolved evaluation; its endpoint has a URL.
        output_dir: the folder of the run.

    Raises:
        MisconfigurationError: something in the adapter's configuration is unknown, wrong or contradicts itself.
    """
    endpoint = evaluation.target.api_endpoint
    assert endpoint is not None
    assert endpoint.url is not None
    config = endpoint.adapter_config or AdapterConfig()
    further = list(_further(evaluation, config))
    asked = [*names(config), *(name for entry in further for name in names(entry.config))]
    known = discover_interceptors(config.discovery, asked).kinds
    chain = resolve_chain(config, output_dir=output_dir, known=known)
    report_settings(config)
    check_endpoint_type(chain, endpoint.type, url=endpoint.url)
    params = evaluation.config.params
    # The harness's own time-out ends a request; the proxy's is only there for harnesses that have none.
    seconds = max(DEFAULT_REQUEST_TIMEOUT, (params and params.request_timeout) or 0)
    model = Route(upstream=Upstream(url=endpoint.url, request_timeout=seconds), chain=chain, known=known)
    return model, *(_route(entry, evaluation, model, output_dir=output_dir) for entry in further)


def routing_notices(evaluation: Evaluation) -> tuple[str, ...]:
    """What a user should be told once: which judges go through the proxy without having been configured."""
    endpoint = evaluation.target.api_endpoint
    config = (endpoint.adapter_config if endpoint else None) or AdapterConfig()
    return tuple(
        f"requests to the URL in {'.'.join(entry.parameter)} go through the proxy too, as {entry.name!r} "
        f"(adapter_config.upstreams: {{{entry.name}: false}} switches that off)"
        for entry in _further(evaluation, config)
        if entry.name not in config.upstreams
    )


def replaced_parameters(routes: tuple[Route, ...], urls: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """What stands in the command in place of judges' URLs: the keys of each parameter, and the URL of its route."""
    return {route.parameter: urls[route.name] for route in routes if route.parameter is not None}


def at(routes: tuple[Route, ...], url: str) -> tuple[Route, ...]:
    """The same routes, with the model's endpoint at `url`."""
    model, *others = routes
    return replace(model, upstream=replace(model.upstream, url=url)), *others


def _further(evaluation: Evaluation, config: AdapterConfig) -> Iterator[_Further]:
    extra = evaluation.config.params.extra if evaluation.config.params else None
    found = judge_parameters(extra)
    for name, upstream in config.upstreams.items():
        _check_name(name)
        if not upstream.enabled:
            continue
        parameter = tuple(upstream.parameter.split(".")) if upstream.parameter else usual_parameter(extra, name)
        if parameter is None:
            raise MisconfigurationError(
                f"adapter_config.upstreams.{name}: the harness would not learn the address of its proxy: name in "
                "`parameter` the parameter that it takes the URL from, such as config.params.extra.judge.url"
            )
        yield _Further(name, upstream, parameter)
    taken = {tuple(upstream.parameter.split(".")) for upstream in config.upstreams.values() if upstream.parameter}
    for name, keys in found.items():
        if name not in config.upstreams and keys not in taken:
            yield _Further(name, UpstreamConfig(), keys)


def _check_name(name: str) -> None:
    if name == MODEL or not is_variable_name(name):
        why = "that is the endpoint under test" if name == MODEL else "it may hold letters, digits and _ only"
        raise MisconfigurationError(f"adapter_config.upstreams: {name!r} cannot name a further endpoint: {why}")


def _route(entry: _Further, evaluation: Evaluation, model: Route, *, output_dir: str | Path) -> Route:
    place = f"adapter_config.upstreams.{entry.name}"
    at_parameter = _value_at(evaluation, entry.parameter, place)
    url = entry.config.url or at_parameter
    if not isinstance(url, str) or not url:
        raise MisconfigurationError(
            f"{place}: has no URL: give `url`, or a value for its parameter {'.'.join(entry.parameter)}"
        )
    if REDACTED in url:
        raise MisconfigurationError(f"{place}: its URL holds {REDACTED}, which stands for a value that is not written")
    upstream = Upstream(url=url, request_timeout=entry.config.request_timeout)
    if upstream.basic_authorization is not None:
        raise MisconfigurationError(
            f"{place}: its URL holds a user name or password, which would be written to files; put the key into an "
            "environment variable and name it in `api_key_name`"
        )
    chain = resolve_chain(entry.config, output_dir=output_dir, known=model.known, place=place)
    check_endpoint_type(chain, None, url=url)
    return Route(
        upstream=upstream,
        name=entry.name,
        chain=_with_shared(chain, entry.config, model),
        known=model.known,
        api_key_name=entry.config.api_key_name,
        parameter=entry.parameter,
    )


def _with_shared(
    chain: tuple[InterceptorConfig, ...], upstream: UpstreamConfig, model: Route
) -> tuple[InterceptorConfig, ...]:
    """The chain of a judge with what is one for the whole run; a list stands for itself."""
    if upstream.interceptors:
        return chain
    of_model = {entry.name for entry in model.chain}
    groups = {name: flags.GROUPS[name] for name in _SHARED}
    # Where the model has none, a judge that asks for one has its own.
    shared = [
        name
        for name, group in groups.items()
        if not group.changed(upstream) and (name in of_model or not group.given(upstream))
    ]
    links = [entry for entry in chain if entry.name not in (*shared, ENDPOINT)]
    links += [entry for entry in model.chain if entry.name in shared]
    order = {name: (STAGES.index(kind.stage), rank) for rank, (name, kind) in enumerate(BUILT_IN.items())}
    return (*sorted(links, key=lambda entry: order[entry.name]), InterceptorConfig(name=ENDPOINT))


def _value_at(evaluation: Evaluation, keys: tuple[str, ...], place: str) -> Any:
    value: Any = evaluation.model_dump(mode="json")
    for index, key in enumerate(keys):
        if not isinstance(value, Mapping) or key not in value:
            raise MisconfigurationError(
                f"{place}.parameter: the configuration has no {'.'.join(keys[: index + 1])}; it must name a parameter "
                "of the task, such as config.params.extra.judge.url"
            )
        value = value[key]
    return value
