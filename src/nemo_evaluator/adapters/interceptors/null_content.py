"""Part of `endpoint`: answers without content get an empty one, as in the compatible interface."""

from __future__ import annotations

import json
import re
from typing import Any

from nemo_evaluator.adapters.messages import Response

_OK = 200
_NULL_CONTENT = re.compile(rb'"content"\s*:\s*null')


async def fill_null_content(response: Response) -> Response:
    """`choices[*].message.content` that is null becomes `""`; harnesses built on the compatible proxy rely on it.

    Only answers that have such a null are written anew; all others keep their bytes.

    Raises:
        UpstreamFailure: the answer cannot be unpacked.
    """
    if response.status != _OK or not response.is_json:
        return response
    body = response.body
    if isinstance(body, bytes) and b"null" not in body and "Content-Encoding" not in response.headers:
        return response
    body = await response.read()
    if not _NULL_CONTENT.search(body):
        return response
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return response
    if _fill(document):
        response.replace_body(json.dumps(document).encode())
    return response


def _fill(document: Any) -> bool:
    choices = document.get("choices") if isinstance(document, dict) else None
    filled = False
    for choice in choices if isinstance(choices, list) else []:
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict) and "content" in message and message["content"] is None:
            message["content"] = ""
            filled = True
    return filled
