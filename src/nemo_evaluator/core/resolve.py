"""From what the user asked for to one typed evaluation, or to an error that says what to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from nemo_evaluator import env
from nemo_evaluator.adapters.judges import judge_parameters
from nemo_evaluator.adapters.redaction import REDACTED
from nemo_evaluator.api.api_dataclasses import Evaluation
from nemo_evaluator.core.definitions import Catalogue, Framework, Task, merge_definitions
from nemo_evaluator.core.layers import Settings, look_up
from nemo_evaluator.core.metadata import plain_metadata
from nemo_evaluator.core.parameters import check_parameters
from nemo_evaluator.errors import MisconfigurationError
from nemo_evaluator.suggest import did_you_mean, nearest

NO_HARNESS = (
    f"No harness is installed here: install a harness package, or name folders of harnesses in {env.HARNESS_PATH}"
    " (in a clone of this project: its folder harnesses/)."
)
_SECTIONS = {"config": {"params": {"extra": {}}}, "target": {"api_endpoint": {}}}
"""Every configuration has these mappings, so that nothing else can be put in their places."""
_ENDINGS = (("/chat/completions", "chat"), ("/completions", "completions"), ("/embeddings", "embedding"))


@dataclass(frozen=True, slots=True)
class Resolved:
    """An evaluation ready to run."""

    evaluation: Evaluation
    framework: Framework
    task: Task | None
    """None when the framework does not list the task and runs it all the same."""
    notices: tuple[str, ...]
    """What the user should know: parameters without effect, a type taken from the URL, …"""
    metadata: Mapping[str, Any]


def resolve(settings: Settings, catalogue: Catalogue) -> Resolved:
    """The evaluation that `settings` ask for.

    Raises:
        MisconfigurationError: something is missing, unknown, of the wrong type or out of range.
    """
    notices: list[str] = []
    framework, task, name = find_task(_required_type(settings), catalogue)
    defaults = with_own_folders(framework.merged_defaults(task), framework.folder)
    merged = settings.over(merge_definitions(_SECTIONS, defaults))
    merged["config"]["type"] = name
    if task is None:
        merged["config"]["params"] = {**merged["config"]["params"], "task": name}
        notices.append(_unlisted_notice(framework, name))
    merged.update(framework_name=framework.name, pkg_name=framework.pkg_name)
    _settle_url(merged)
    notices += _settle_endpoint_type(merged)
    evaluation = _validate(merged, settings)
    notices += check_parameters(evaluation, framework, task, settings)
    _check_required(evaluation)
    notices += _check_adapter(evaluation)
    return Resolved(evaluation, framework, task, tuple(notices), plain_metadata(settings.metadata))


def _required_type(settings: Settings) -> str:
    requested = settings.value("config", "type")
    if requested is None:
        raise MisconfigurationError("Missing required argument: config.type (cli: --eval_type)")
    if not isinstance(requested, str) or not requested:
        raise MisconfigurationError(f"config.type must be the name of a task, not {requested!r}")
    return requested


def find_task(requested: str, catalogue: Catalogue) -> tuple[Framework, Task | None, str]:
    """The framework and the task that `requested` (`TASK` or `FRAMEWORK.TASK`) names, and the bare task name.

    Raises:
        MisconfigurationError: unknown, ambiguous, or not of that form; the message lists the choices.
    """
    owners = catalogue.owners(requested)
    if len(owners) == 1:
        return owners[0], owners[0].tasks[requested], requested
    if len(owners) > 1:
        names = [owner.name for owner in owners]
        raise MisconfigurationError(
            f"{requested} is available in multiple frameworks: {', '.join(names)}. Choose one of: "
            + ", ".join(f"{name}.{requested}" for name in names)
        )
    framework_name, dot, name = requested.partition(".")
    if not dot:
        raise MisconfigurationError(_unknown_task(requested, catalogue))
    framework = catalogue.frameworks.get(framework_name)
    if framework is None:
        _refuse_broken(framework_name, catalogue)
        raise MisconfigurationError(
            f"Unknown framework {framework_name}.{did_you_mean(framework_name, catalogue.frameworks)}"
            f" Frameworks available: {', '.join(catalogue.frameworks) or 'none'}"
        )
    task = framework.tasks.get(name)
    if task is None:
        if "." in name:
            raise MisconfigurationError(
                "eval_type must follow 'framework_name.evaluation_name'. No additional dots are allowed."
            )
        _refuse_unlisted(framework, name)
    return framework, task, name


def _unknown_task(requested: str, catalogue: Catalogue) -> str:
    every = sorted({name for framework in catalogue.frameworks.values() for name in framework.tasks})
    near = nearest(requested, every)
    message = f"Unknown evaluation {requested}."
    if near:
        message += f" Did you mean {' or '.join(near)}?"
    elif every:
        message += f" Evaluations available: {', '.join(every)}"
    else:
        return f"{message} {NO_HARNESS}"
    if catalogue.broken:
        message += f" ({len(catalogue.broken)} definition(s) could not be read: nemo-evaluator ls shows why)"
    return f"{message} `nemo-evaluator ls` lists them all."


def _refuse_broken(framework_name: str, catalogue: Catalogue) -> None:
    for broken in catalogue.broken:
        if broken.file.parent.name == framework_name:
            raise MisconfigurationError(f"The definition of {framework_name} cannot be used: {broken.reason}")


def _refuse_unlisted(framework: Framework, name: str) -> None:
    """An unlisted task runs only where the framework's command passes the task's name on."""
    params = (framework.defaults.get("config") or {}).get("params")
    if "config.params.task" not in framework.defaults["command"] or not isinstance(params, Mapping):
        raise MisconfigurationError(
            f"Framework {framework.name} has no task {name}.{did_you_mean(name, framework.tasks)}"
            f" Its tasks: {', '.join(framework.tasks)}"
        )


def _unlisted_notice(framework: Framework, name: str) -> str:
    return (
        f"{framework.name} does not list the task {name}; it runs with the framework's defaults."
        f"{did_you_mean(name, framework.tasks)}"
    )


def with_own_folders(defaults: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`defaults` of a definition, in which folders of interceptors are below the folder of the definition."""
    found, folders = look_up(defaults, ("target", "api_endpoint", "adapter_config", "discovery", "dirs"))
    if not found or not isinstance(folders, list):
        return defaults
    absolute = [str(folder / entry) if isinstance(entry, str) else entry for entry in folders]
    nested = {"target": {"api_endpoint": {"adapter_config": {"discovery": {"dirs": absolute}}}}}
    return merge_definitions(defaults, nested)


def _settle_url(merged: dict[str, Any]) -> None:
    """Fill in a missing URL from the adapter's configuration, where the oldest form has it."""
    endpoint = merged["target"]["api_endpoint"]
    _, url = look_up(endpoint, ("adapter_config", "api_url"))
    if endpoint.get("url") is None and isinstance(url, str):
        endpoint["url"] = url


def _settle_endpoint_type(merged: dict[str, Any]) -> list[str]:
    """Fill in a missing endpoint type from the URL; let a `vlm` endpoint serve tasks for chat endpoints."""
    endpoint = merged["target"]["api_endpoint"]
    supported = merged["config"].get("supported_endpoint_types")
    if not isinstance(supported, list):
        return []
    url = endpoint.get("url")
    if endpoint.get("type") in (None, "undefined") and isinstance(url, str):
        check_url(url)
        path = urlsplit(url).path.rstrip("/")
        by_url = next((kind for ending, kind in _ENDINGS if path.endswith(ending)), None)
        if by_url in supported:
            endpoint["type"] = by_url
            return [f"target.api_endpoint.type is not set; the URL says {by_url}"]
    elif endpoint.get("type") == "vlm" and "vlm" not in supported and "chat" in supported:
        endpoint["type"] = "chat"
        return ["a vlm endpoint is a chat endpoint that takes images; the task sees the type chat"]
    return []


def _validate(merged: dict[str, Any], settings: Settings) -> Evaluation:
    try:
        return Evaluation.model_validate(merged)
    except ValidationError as error:
        raise MisconfigurationError("\n".join(_explain(problem, settings) for problem in error.errors())) from None


def _explain(problem: Any, settings: Settings) -> str:
    """One validation problem: the key, what is wrong with it and who set it.

    Values of keys are not repeated where they may be secrets.
    """
    keys = [str(part) for part in problem["loc"] if not str(part).startswith(("constrained-", "function-"))]
    keys = [key for key in keys if key not in ("int", "float")]
    message = problem["msg"].removeprefix("Value error, ")
    source = settings.source(keys)
    shown = ""
    # Values of the adapter's configuration may be secrets of any name.
    tellable = problem["type"] != "value_error" and "adapter_config" not in keys
    if tellable and not isinstance(problem.get("input"), Mapping):
        shown = f" (it is {problem['input']!r})"
    # Where documents of other implementations had it at times.
    place = ". It belongs in target.api_endpoint.adapter_config" if "key 'adapter_config'" in message else ""
    return f"{'.'.join(keys)}: {message}{shown}{f', set by {source}' if source else ''}{place}"


def _check_adapter(evaluation: Evaluation) -> tuple[str, ...]:
    """Notices about the adapter configuration; errors in it are found here, before anything starts."""
    endpoint, params = evaluation.target.api_endpoint, evaluation.config.params
    if endpoint is None or (endpoint.adapter_config is None and not judge_parameters(params.extra if params else None)):
        return ()
    # Half of the time of a dry run, and seldom needed.
    from nemo_evaluator.adapters.chain import check_api_url, notices  # noqa: PLC0415
    from nemo_evaluator.adapters.routes import resolve_routes, routing_notices  # noqa: PLC0415

    check_api_url(endpoint.adapter_config, endpoint.url)
    resolve_routes(evaluation, evaluation.config.output_dir or "")
    return (*notices(endpoint.adapter_config), *routing_notices(evaluation))


def _check_required(evaluation: Evaluation) -> None:
    config, endpoint = evaluation.config, evaluation.target.api_endpoint
    if not config.output_dir:
        raise MisconfigurationError("Missing required argument: config.output_dir (cli: --output_dir)")
    if endpoint is None:
        raise MisconfigurationError(
            "You need to define target.api_endpoint (cli: --model_id, --model_url, --model_type)"
        )
    supported = config.supported_endpoint_types
    if supported and endpoint.type is None:
        raise MisconfigurationError(
            "target.api_endpoint.type (cli: --model_type) should be defined and match one of the endpoint types"
            f" supported by the benchmark: {', '.join(supported)}"
        )
    if supported and str(endpoint.type) not in supported:
        raise MisconfigurationError(
            f"The benchmark '{config.type}' does not support the model type '{endpoint.type}'."
            f" The benchmark supports: {', '.join(supported)}."
        )
    if not endpoint.url:
        raise MisconfigurationError("Missing required argument: target.api_endpoint.url (cli: --model_url)")
    if endpoint.type is not None and not endpoint.model_id:
        raise MisconfigurationError("Missing required argument: target.api_endpoint.model_id (cli: --model_id)")
    check_url(endpoint.url)


def check_url(url: str) -> None:
    """Refuse a URL that cannot be an endpoint's.

    Raises:
        MisconfigurationError: says what is wrong with it, without repeating a password in it.
    """
    key = "target.api_endpoint.url (cli: --model_url)"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise MisconfigurationError(f"{key}: {error}") from error
    if parts.username or parts.password:
        raise MisconfigurationError(
            f"{key}: holds a user name or password, which would be written to files; put the key into an"
            " environment variable and name it with --api_key_name"
        )
    if parts.scheme not in ("http", "https"):
        raise MisconfigurationError(f"{key}: {url!r} must begin with http:// or https://")
    if not parts.hostname:
        raise MisconfigurationError(f"{key}: {url!r} names no host")
    if port == 0:
        raise MisconfigurationError(f"{key}: {url!r} has port 0, which nothing can listen on")
    if parts.fragment:
        raise MisconfigurationError(f"{key}: {url!r} has a fragment (#{parts.fragment}), which is never sent")
    if REDACTED in url:
        raise MisconfigurationError(f"{key}: holds {REDACTED}, which stands for a value that is not written to files")
    if any(character <= " " or character == "\x7f" for character in url):
        raise MisconfigurationError(f"{key}: holds a space or control character; write it as %20 and so on")
