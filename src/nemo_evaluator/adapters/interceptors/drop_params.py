"""`drop_params`: leaves out parameters that an endpoint does not know, always or once it has refused them."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.files import write_atomically

REFUSED_FILE = "dropped_params.json"
"""Where it is kept which parameters an endpoint refused, in the folder of the run: a resumed run asks the same."""

_log = logging.getLogger(__name__)

_NOTHING = object()
_REFUSALS = (400, 422)
_LONGEST_ERROR = 64 * 1024
_UNKNOWN = re.compile(
    r"unknown|unsupported|not[ _]supported|(?:does|do)(?:n't| not) support|unrecogni[sz]ed|unexpected|extra[ _]"
    r"|not[ _](?:permitted|allowed|accepted|recogni[sz]ed|available|a valid (?:parameter|argument|field|property))"
    r"|no such (?:parameter|argument|field|property)|(?:cannot|can't) be (?:set|used)",
    re.IGNORECASE,
)


class DropParamsParameters(Parameters):
    """Which parameters, named by dotted paths (`stream_options.include_usage`, `messages.*.name`), and when."""

    params: Annotated[tuple[str, ...], Field(min_length=1)]
    when: Literal["always", "rejected"] = "always"

    @field_validator("params")
    @classmethod
    def _check_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not all(path.split(".")) or path.split(".")[-1] == "*" or path.startswith("*"):
                raise ValueError(
                    f"{path!r} is no path of a parameter: write names joined by dots, with * for every item of a list, "
                    "as in messages.*.name"
                )
        return paths


class DropParams:
    """Takes parameters out of POST requests whose body is a JSON object; other requests pass as they are.

    With `when: rejected` a request goes out as it is. When the endpoint answers 400 or 422 and its message calls one of
    the parameters unknown or unsupported, that one is left out of all requests from then on, and the request is sent
    again. What was learnt is kept in the folder of the run.
    """

    def __init__(self, parameters: DropParamsParameters, context: Context) -> None:
        self._params = parameters.params
        self._address = context.upstream.address
        self._file = context.output_dir / REFUSED_FILE if context.output_dir is not None else None
        self._is_told: set[str] = set()
        if parameters.when == "always":
            self._dropped = self._params
        else:
            known = _read(self._file).get(self._address, ())
            self._dropped = tuple(path for path in self._params if path in known)
            self._is_told.update(self._dropped)

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Take the parameters out, and again after a refusal."""
        if not request.is_counted:
            return await call_next(request)
        self._drop(request)
        if len(self._dropped) == len(self._params):
            return await call_next(request)
        # Links within may change the request: a repetition begins with what it was here.
        body, headers = request.body, request.headers.copy()
        response = await call_next(request)
        while response.status in _REFUSALS and (refused := await self._refused(response)):
            self._learn(refused)
            request.body, request.headers = body, headers.copy()
            if not self._drop(request):
                return response
            await response.aclose()
            body = request.body
            request.attempt += 1
            response = await call_next(request)
        return response

    def _drop(self, request: Request) -> bool:
        """Whether anything was there to be dropped."""
        try:
            document = request.json() if self._dropped else None
        except ValueError:
            return False
        found = [path for path in self._dropped if _take(document, path.split("."))]
        if found:
            request.replace_json(document)
        for path in found:
            if path not in self._is_told:
                self._is_told.add(path)
                _log.warning("drop_params: %r is left out of requests to %s", path, self._address)
        return bool(found)

    async def _refused(self, response: Response) -> list[str]:
        """Those of the parameters that the answer calls unknown."""
        try:
            body = await response.read()
        except UpstreamFailure:
            return []
        statements = _statements(body)
        return [path for path in self._params if any(_names(statement, path) for statement in statements)]

    def _learn(self, refused: list[str]) -> None:
        new = [path for path in refused if path not in self._dropped]
        if not new:
            return
        self._dropped = (*self._dropped, *new)
        for path in new:
            self._is_told.add(path)
            _log.warning(
                "drop_params: %s refused the parameter %r; it is left out of this and all further requests",
                self._address,
                path,
            )
        if self._file is not None:
            known = _read(self._file)
            known[self._address] = sorted({*known.get(self._address, ()), *new})
            try:
                write_atomically(self._file, json.dumps(known, indent=2) + "\n")
            except OSError as error:
                _log.warning("drop_params: %s cannot be written: %s", self._file, error.strerror)


def _take(value: Any, path: list[str]) -> bool:
    """Remove what `path` leads to; whether there was anything."""
    name, rest = path[0], path[1:]
    if not rest:
        return isinstance(value, dict) and value.pop(name, _NOTHING) is not _NOTHING
    # A sum, since every item counts, not only the first one that has it.
    return sum(_take(item, rest) for item in _below(value, name)) > 0


def _below(value: Any, name: str) -> list[Any]:
    """What the step `name` of a path leads to."""
    if isinstance(value, dict):
        if name == "*":
            return list(value.values())
        return [value[name]] if name in value else []
    if isinstance(value, list):
        if name == "*":
            return value
        return [value[int(name)]] if name.isdecimal() and int(name) < len(value) else []
    return []


def _names(statement: str, path: str) -> bool:
    """Whether a statement of an error calls the parameter `path` unknown."""
    if not _UNKNOWN.search(statement):
        return False
    whole = r"[.\[\]]+".join(r"\w+" if part == "*" else re.escape(part) for part in path.split("."))
    last = re.escape(path.rpartition(".")[2])
    # A name below the top stands alone only where it is quoted: `name` in a sentence need not be a parameter.
    alone = rf"""['"`]{last}['"`]""" if "." in path else last
    return re.search(rf"(?<![\w.-])(?:{whole}|{alone})(?![\w-])", statement) is not None


def _statements(body: bytes) -> list[str]:
    """What an error says, statement by statement, without the parts of the request that some servers repeat."""
    try:
        document = json.loads(body[:_LONGEST_ERROR])
    except (ValueError, RecursionError):
        return [body[:_LONGEST_ERROR].decode(errors="replace")]
    if not isinstance(document, dict):
        return [document] if isinstance(document, str) else []
    items: list[Any] = [document]
    for key in ("error", "detail", "errors"):
        value = document.get(key)
        items.extend(value if isinstance(value, list) else [value])
    statements = [_statement(item) if isinstance(item, dict) else item for item in items]
    return [statement for statement in statements if isinstance(statement, str) and statement]


def _statement(error: dict[str, Any]) -> str:
    where, param = error.get("loc"), error.get("param")
    parts = [
        # FastAPI's errors place it: ["body", "seed"].
        ".".join(str(part) for part in where if part != "body") if isinstance(where, list) else None,
        f"'{param}'" if isinstance(param, str) else None,
        *(error.get(key) for key in ("code", "type", "message", "msg")),
    ]
    return " ".join(part for part in parts if isinstance(part, str))


def _read(file: Path | None) -> dict[str, list[str]]:
    """What was learnt before; nothing when there is no file, or somebody changed it beyond reading."""
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return {
        address: [path for path in paths if isinstance(path, str)]
        for address, paths in (found.items() if isinstance(found, dict) else ())
        if isinstance(paths, list)
    }
