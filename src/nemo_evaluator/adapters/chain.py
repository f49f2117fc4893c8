"""From a configuration to the chain of interceptors that a run uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nemo_evaluator.adapters import flags
from nemo_evaluator.adapters.discovery import discover_interceptors
from nemo_evaluator.adapters.interceptors.payload_modifier import FRAMING_HEADERS
from nemo_evaluator.adapters.post_eval_report import report_notices
from nemo_evaluator.adapters.registration import STAGES
from nemo_evaluator.adapters.registry import BUILT_IN, ENDPOINT, HOOKS, Kind, check
from nemo_evaluator.adapters.upstream import ENDPOINT_SUFFIXES
from nemo_evaluator.api.adapter_config import AdapterConfig, ChainConfig, InterceptorConfig
from nemo_evaluator.errors import MisconfigurationError

__all__ = ["check_api_url", "check_endpoint_type", "links", "names", "notices", "resolve_chain"]

_NEEDS_CHAT = ("system_message",)
_CHAT_TYPES = ("chat", "vlm", "undefined")
_RANK = {name: rank for rank, name in enumerate(BUILT_IN)}
_STORE = "caching"
_LIMITS = ("save_requests", "save_responses", "max_saved_requests", "max_saved_responses")
_OUTERMOST = ("failed_request_logging",)
"""Shared by both forms: with any list, it watches from outside."""


def resolve_chain(
    config: ChainConfig | None,
    *,
    output_dir: str | Path,
    known: Mapping[str, Kind] | None = None,
    place: str = "adapter_config",
) -> tuple[InterceptorConfig, ...]:
    """The chain that `config` means, in the order in which requests pass through it; the endpoint is last.

    Both forms are understood. In the list form an entry that stands after `endpoint` wraps it like the others: it
    sees answers before the entries in front of it do. Entries that are off are left out. Nothing is started.

    Args:
        config: the configuration; None when none was given, which means the defaults of the flag form.
        output_dir: the folder of the run, below which default paths lie.
        known: the interceptors that may be named; None: the built-in ones and those that `config.discovery` finds.
        place: what to call the configuration in errors.

    Raises:
        MisconfigurationError: a name or parameter is unknown or wrong, or the two forms contradict each other.
    """
    config = config or AdapterConfig()
    if known is None:
        discovery = config.discovery if isinstance(config, AdapterConfig) else AdapterConfig().discovery
        known = discover_interceptors(discovery, names(config)).kinds
    _refuse_impossible(config, place)
    if isinstance(config, AdapterConfig):
        for index, hook in enumerate(config.post_eval_hooks):
            check(hook, place=f"{place}.post_eval_hooks[{index}]", known=HOOKS)
    for index, entry in enumerate(config.interceptors):
        check(entry, place=f"{place}.interceptors[{index}]", known=known)
    named = links(config, output_dir=output_dir, known=known, place=place)
    for entry in named:
        check(entry, place=place, known=known)
    stages = {stage: rank for rank, stage in enumerate(STAGES)}
    return (*sorted(named, key=lambda entry: stages[known[entry.name].stage]), InterceptorConfig(name=ENDPOINT))


def links(
    config: ChainConfig, *, output_dir: str | Path, known: Mapping[str, Kind] = BUILT_IN, place: str = "adapter_config"
) -> list[InterceptorConfig]:
    """The entries that are on, in the order of the list, without the endpoint; names and parameters are not checked.

    Without a list these are all that the flags stand for, otherwise the list's and those that flags add to it.

    Raises:
        MisconfigurationError: the two forms contradict each other, or it is not clear where an entry belongs.
    """
    own = config.output_dir if isinstance(config, AdapterConfig) else None
    folder = Path(output_dir or own or ".")
    merged = [entry for entry in config.interceptors if entry.name != ENDPOINT]
    listed = {entry.name for entry in merged}
    for name, group in flags.GROUPS.items():
        changed = group.changed(config)
        if changed and name in listed:
            raise MisconfigurationError(
                f"{place}: {', '.join(changed)} and the entry {name!r} of interceptors both set up the same "
                "interceptor. Keep the entry and give it the parameters, or remove it and keep the flags."
            )
    for name, entry in flags.entries(config, output_dir=folder, only_given=bool(config.interceptors)).items():
        if name in listed:
            continue
        same = [index for index, other in enumerate(merged) if _stage(other.name, known) == _stage(name, known)]
        try:
            merged.insert(_place(name, merged, same), entry)
        except LookupError:
            raise MisconfigurationError(
                f"{place}: where {name!r}, switched on by {', '.join(flags.GROUPS[name].given(config))}, goes among "
                f"the interceptors of the list is not clear. Write {name!r} into the list, at its place, and remove "
                "the flags."
            ) from None
    return [entry for entry in merged if entry.enabled]


def names(config: ChainConfig | None) -> tuple[str, ...]:
    """The interceptors that the list of `config` names, switched on or not."""
    return tuple(entry.name for entry in config.interceptors) if config else ()


def notices(config: AdapterConfig | None) -> tuple[str, ...]:
    """What a user should be told once about a configuration that `resolve_chain` accepts: settings without effect."""
    if config is None:
        return ()
    told: list[str] = []
    chains: dict[str, ChainConfig] = {"adapter_config": config}
    chains.update({f"adapter_config.upstreams.{name}": upstream for name, upstream in config.upstreams.items()})
    for place, chain in chains.items():
        told += [
            f"{place}: {name} has no effect, because {group.switch} is false"
            for group in flags.GROUPS.values()
            for name in _idle(chain, group)
        ]
        told += _framing_headers(chain, place)
        told += _needless_limits(chain, place)
    told += report_notices(config)
    if config.output_dir is not None:
        told.append("adapter_config: output_dir has no effect: the folder of the run is config.output_dir")
    if config.mode == "client":
        told.append("adapter_config: mode 'client' is served by the proxy, like mode 'server'")
    return tuple(told)


def check_endpoint_type(chain: Iterable[InterceptorConfig], endpoint_type: str | None, *, url: str = "") -> None:
    """Refuse a chain that cannot work with an endpoint.

    Args:
        chain: a resolved chain.
        endpoint_type: `chat`, `completions` …; None when it was not declared, then the URL's end counts.
        url: the endpoint's URL.

    Raises:
        MisconfigurationError: an interceptor for conversations stands before an endpoint that takes none.
    """
    if endpoint_type is None:
        path = url.partition("?")[0].rstrip("/")
        suffix = next((suffix for suffix in ENDPOINT_SUFFIXES if path.endswith(suffix)), "")
        endpoint_type = "chat" if suffix in ("", "/chat/completions") else suffix.removeprefix("/")
    for entry in chain:
        if entry.name in _NEEDS_CHAT and endpoint_type not in _CHAT_TYPES:
            raise MisconfigurationError(
                f"adapter_config: {entry.name!r} works on chat requests, but the endpoint is of type "
                f"{endpoint_type!r}. Remove it (flag form: use_system_prompt), or choose a chat endpoint."
            )


def check_api_url(config: AdapterConfig | None, url: str | None) -> str | None:
    """The endpoint's URL: `url`, or `config.api_url` when there is none.

    Raises:
        MisconfigurationError: both are given and differ.
    """
    api_url = config.api_url if config else None
    if url is None or api_url is None:
        return url or api_url
    if url.rstrip("/") != api_url.rstrip("/"):
        raise MisconfigurationError(
            "adapter_config.api_url and target.api_endpoint.url name different endpoints; give only the latter"
        )
    return url


def _refuse_impossible(config: ChainConfig, place: str) -> None:
    for flag, name in (("use_nvcf", "nvcf"), ("use_omni_info", "omni_info")):
        if getattr(config, flag):
            raise MisconfigurationError(
                f"{place}.{flag}: the interceptor {name!r} is not part of the public interface; remove the flag"
            )
    if sum(entry.name == _STORE and entry.enabled for entry in config.interceptors) > 1:
        raise MisconfigurationError(f"{place}.interceptors: {_STORE!r} stands there twice; keep one of them")
    endpoints = [entry for entry in config.interceptors if entry.name == ENDPOINT]
    if len(endpoints) > 1 or any(not entry.enabled for entry in endpoints):
        raise MisconfigurationError(
            f"{place}.interceptors: {ENDPOINT!r} sends the requests: it must be enabled, and stand there once"
        )


def _stage(name: str, known: Mapping[str, Kind]) -> str | None:
    return known[name].stage if name in known else None


def _place(name: str, merged: Sequence[InterceptorConfig], same: Sequence[int]) -> int:
    """Where the interceptor that flags switch on belongs in `merged`.

    Args:
        name: the interceptor.
        merged: the entries so far.
        same: indices of those that stand in its stage; the order among stages is given.

    Raises:
        LookupError: the list does not keep the order of the flag form, so there is no such place.
    """
    if name in _OUTERMOST:
        return 0
    ranks = {index: _RANK.get(merged[index].name, -1) for index in same}
    place = next((index for index, rank in ranks.items() if rank > _RANK[name]), len(merged))
    if any(rank < _RANK[name] for index, rank in ranks.items() if index > place and rank >= 0):
        raise LookupError(name)
    return place


def _idle(config: ChainConfig, group: flags.FlagGroup) -> list[str]:
    """Settings that were given although what they set is off."""
    if group.switch is None or getattr(config, group.switch) is not False:
        return []
    return [name for name in group.settings if config.was_changed(name)]


def _needless_limits(config: ChainConfig, place: str) -> list[str]:
    """What says which texts are kept for looking at, although all are kept to be given again."""
    given = {name for name in _LIMITS if name in config.model_fields_set or config.was_changed(name)}
    told = {f"{place}: {name}": "use_caching" for name in _LIMITS if config.use_caching and name in given}
    for index, entry in enumerate(config.interceptors):
        if entry.name == _STORE and entry.enabled and entry.config.get("reuse_cached_responses"):
            names = [name for name in _LIMITS if entry.config.get(name) is not None]
            told |= {f"{place}.interceptors[{index}]: {name}": "reuse_cached_responses" for name in names}
    return [f"{what} has no effect: with {why} every exchange is kept whole" for what, why in told.items()]


def _framing_headers(config: ChainConfig, place: str) -> list[str]:
    added = [config.headers_to_add, *(entry.config.get("headers_to_add") for entry in config.interceptors)]
    return [
        f"{place}: headers_to_add: {name} belongs to the connection and is not added"
        for headers in added
        if isinstance(headers, dict)
        for name in headers
        if name.lower() in FRAMING_HEADERS
    ]
