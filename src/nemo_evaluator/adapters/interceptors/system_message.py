"""`system_message`: gives every conversation a system message."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from nemo_evaluator.adapters.interceptor import CallNext
from nemo_evaluator.adapters.messages import Request, Response
from nemo_evaluator.adapters.parameters import Parameters
from nemo_evaluator.adapters.usable import expected_of


class SystemMessageParameters(Parameters):
    """The text, and how it goes together with system messages that are there already."""

    system_message: str
    strategy: Literal["prepend", "append", "replace"] = "prepend"


class SystemMessage:
    """Puts one system message before the conversation: the text joined with those that were there, or in their place.

    It works on chat requests, and on those of the responses API, whose `instructions` are the system message. Requests
    for embeddings have no conversation and pass. Any other POST without `messages` fails, rather than going out without
    the system message.
    """

    def __init__(self, parameters: SystemMessageParameters) -> None:
        self._text = parameters.system_message
        self._strategy = parameters.strategy

    async def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Change the request's messages."""
        if request.is_counted and expected_of(request.url) != "data":
            body = request.json()
            messages = body.get("messages") if isinstance(body, dict) else None
            if isinstance(messages, list):
                body["messages"] = self._with_system_message(messages)
            elif isinstance(body, dict) and urlsplit(request.url).path.rstrip("/").endswith("/responses"):
                body["instructions"] = self._with_instructions(body.get("instructions"))
            else:
                raise ValueError("the request has no messages; a system message needs a chat endpoint")
            request.replace_json(body)
        return await call_next(request)

    def _with_instructions(self, earlier: Any) -> str:
        if not isinstance(earlier, str | None):
            raise TypeError("the request has 'instructions' that are not text")
        return self._joined([earlier] if earlier else [])

    def _with_system_message(self, messages: list[Any]) -> list[Any]:
        earlier = [_text_of(message) for message in messages if _is_system(message)]
        others = [message for message in messages if not _is_system(message)]
        return [{"role": "system", "content": self._joined(earlier)}, *others]

    def _joined(self, earlier: list[str]) -> str:
        parts = {
            "prepend": [self._text, *earlier],
            "append": [*earlier, self._text],
            "replace": [self._text],
        }[self._strategy]
        return "\n".join(parts)


def _is_system(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "system"


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "\n".join(str(part.get("text", "")) for part in content)
    raise ValueError("the request has a system message that is not text")
