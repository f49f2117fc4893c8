"""`modify_tools`: adds, removes, replaces and renames the tools that a harness offers to the model."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.interceptors.tool_names import RenamedStream, called_functions, restore_names
from nemo_evaluator.adapters.json_text import to_json
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters

HarnessName = Annotated[str, Field(min_length=1)]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
"""What OpenAI's API allows in names of functions, and dots, which some servers allow."""

Definition = dict[str, Any]


class ModifyToolsParameters(Parameters):
    """What becomes of the tools of a request. Tools are called by the names that the harness gives them.

    Definitions are those of the chat completions API: `{type: function, function: {name, description, parameters}}`;
    the inner part alone will do.
    """

    remove: tuple[HarnessName, ...] = ()
    replace: dict[HarnessName, Definition] = Field(default={})
    descriptions: dict[HarnessName, str] = Field(default={})
    rename: dict[HarnessName, ToolName] = Field(default={})
    add: tuple[Definition, ...] = ()
    strict: bool | None = None
    tool_choice: Literal["auto", "none", "required"] | None = None

    @field_validator("replace", mode="after")
    @classmethod
    def _check_replacements(cls, replace: dict[str, Definition]) -> dict[str, Definition]:
        found = {name: _function(definition) for name, definition in replace.items()}
        for name, function in found.items():
            if function["name"] != name:
                raise ValueError(
                    f"the definition in place of {name!r} is named {function['name']!r}: keep the name, and use "
                    "'rename' to change it"
                )
        return found

    @field_validator("add", mode="after")
    @classmethod
    def _check_added(cls, add: tuple[Definition, ...]) -> tuple[Definition, ...]:
        found = tuple(_function(definition) for definition in add)
        names = [function["name"] for function in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"the tool {twice!r} is added twice")
        return found

    @model_validator(mode="after")
    def _check(self) -> Self:
        new = list(self.rename.values())
        twice = next((name for name in new if new.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two tools are renamed to {twice!r}; an answer could not be told apart")
        both = set(self.remove) & (self.rename.keys() | self.replace.keys() | self.descriptions.keys())
        if both:
            raise ValueError(f"the tool {min(both)!r} is removed and changed; do one of them")
        changes = any((self.remove, self.replace, self.descriptions, self.rename, self.add))
        if not changes and self.strict is None and self.tool_choice is None:
            raise ValueError(
                "nothing to do: give 'remove', 'replace', 'descriptions', 'rename', 'add', 'strict' or 'tool_choice'"
            )
        return self


class ModifyTools:
    """Changes the tools of chat requests: remove, replace, describe, rename, add, then `strict` and `tool_choice`.

    It reads `tools` and the older `functions`; requests without `messages` pass unchanged. Renamed tools are renamed in
    the conversation too, and back again in answers, so that the harness sees its own names only. Streams are passed on
    as they come; a name must be in one event, as OpenAI's API sends it.
    """

    def __init__(self, parameters: ModifyToolsParameters) -> None:
        self._parameters = parameters
        self._original = {new: old for old, new in parameters.rename.items()}

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Change the request, and names in the answer."""
        try:
            body = request.json() if request.is_counted else None
        except ValueError:
            body = None
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            return await call_next(request)
        self._change(body)
        request.replace_json(body)
        response = await call_next(request)
        if not self._original or response.status != 200:  # noqa: PLR2004  only an answer calls tools
            return response
        if response.is_event_stream and not isinstance(response.body, bytes):
            stream = RenamedStream(response.body, self._original, response)
            # What is passed on has neither the coding nor the length of what came.
            response.replace_body(b"")
            response.body = stream
        elif response.is_event_stream or response.is_json:
            answer = await response.read()
            restored = restore_names(answer, self._original, is_stream=response.is_event_stream)
            if restored is not answer:
                response.replace_body(restored)
        return response

    def _change(self, body: dict[str, Any]) -> None:
        is_legacy = isinstance(body.get("functions"), list) and not isinstance(body.get("tools"), list)
        key = "functions" if is_legacy else "tools"
        before = body.get(key)
        if before is None or isinstance(before, list):
            tools = self._tools(before or [], is_legacy=is_legacy)
            if tools:
                body[key] = tools
            elif before is not None:
                # An endpoint refuses an empty list, and a choice among none.
                for name in (key, "tool_choice", "function_call", "parallel_tool_calls"):
                    body.pop(name, None)
            self._choose(body, has_tools=bool(tools), is_legacy=is_legacy)
        for call in _named_in(body["messages"]):
            call["name"] = self._parameters.rename.get(call["name"], call["name"])

    def _tools(self, before: list[Any], *, is_legacy: bool) -> list[Any]:
        parameters = self._parameters
        tools = [self._changed(tool) for tool in before if _name(tool) not in parameters.remove]
        for function in parameters.add:
            added = deepcopy(function)
            tools.append(added if is_legacy else {"type": "function", "function": added})
        names = [name for tool in tools if (name := _name(tool)) is not None]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"the request would have two tools named {twice!r}: 'add' and 'rename' need names that are free; use "
                "'replace' to change a tool"
            )
        if parameters.strict is not None and not is_legacy:
            for tool in tools:
                inner = tool.get("function") if isinstance(tool, dict) else None
                if isinstance(inner, dict):
                    inner["strict"] = parameters.strict
        return tools

    def _changed(self, tool: Any) -> Any:
        name = _name(tool)
        if name is None:
            return tool
        parameters = self._parameters
        function = tool["function"] if isinstance(tool.get("function"), dict) else tool
        if name in parameters.replace:
            function = deepcopy(parameters.replace[name])
        if name in parameters.descriptions:
            function["description"] = parameters.descriptions[name]
        if name in parameters.rename:
            function["name"] = parameters.rename[name]
        return {**tool, "function": function} if isinstance(tool.get("function"), dict) else function

    def _choose(self, body: dict[str, Any], *, has_tools: bool, is_legacy: bool) -> None:
        key = "function_call" if is_legacy else "tool_choice"
        parameters = self._parameters
        chosen = body.get(key)
        function = chosen.get("function", chosen) if isinstance(chosen, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            if function["name"] in parameters.remove:
                del body[key]
            else:
                function["name"] = parameters.rename.get(function["name"], function["name"])
        if parameters.tool_choice is not None and has_tools:
            if is_legacy and parameters.tool_choice == "required":
                raise ValueError("'functions' have no choice 'required'; the request needs 'tools' for it")
            body[key] = parameters.tool_choice


def _function(definition: Definition) -> Definition:
    """The inner part of a definition, checked."""
    is_wrapped = "function" in definition
    function = definition.get("function") if is_wrapped else definition
    if not isinstance(function, dict) or (is_wrapped and definition.get("type", "function") != "function"):
        raise ValueError("a tool is {type: function, function: {name, description, parameters}}, or its inner part")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a tool needs a 'name'")
    unknown = next((key for key in function if key not in ("name", "description", "parameters", "strict")), None)
    if unknown is not None:
        raise ValueError(
            f"the tool {name!r} has the unknown key {unknown!r}; known: name, description, parameters, strict"
        )
    if not isinstance(function.get("parameters", {}), dict) or not isinstance(function.get("description", ""), str):
        text = f"the tool {name!r}: 'parameters' is a JSON schema and 'description' a text"
        raise ValueError(text)  # noqa: TRY004  pydantic reads ValueError only
    to_json(function)
    return function


def _name(tool: Any) -> str | None:
    """The name of a tool in either form; None for tools of other kinds."""
    if not isinstance(tool, dict):
        return None
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _named_in(messages: list[Any]) -> Iterator[dict[str, Any]]:
    """What names a tool in a conversation: calls of the assistant, and messages with results."""
    for message in messages:
        if not isinstance(message, dict):
            continue
        if message.get("role") in ("tool", "function") and isinstance(message.get("name"), str):
            yield message
        yield from (function for function in called_functions(message) if isinstance(function.get("name"), str))
