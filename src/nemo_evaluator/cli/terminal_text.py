"""Text of others, such as models, harnesses and files, on its way to a terminal."""

from __future__ import annotations

import re

# Controls, and marks that turn the direction of text: nothing that is shown may move the cursor or hide what it says.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """`text` with characters that would act on a terminal written out; tabs and newlines stay."""
    escaped = _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return escaped.encode(errors="backslashreplace").decode()


def harmless_line(text: str) -> str:
    """The same in one line, without blanks at its ends and more than one between words."""
    return " ".join(harmless(text).split())
