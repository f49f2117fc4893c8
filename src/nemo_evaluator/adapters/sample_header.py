"""The header by which the engine tells the proxy which sample a request is about."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

SAMPLE_HEADER = "X-Sample-Id"
LONGEST = 128
_DIGEST = 16


def sample_header(sample_id: str) -> str:
    """`sample_id` as the value of a header: percent-encoded where it must be, and never longer than `LONGEST`."""
    safe = sample_id.isascii() and sample_id.isprintable() and "%" not in sample_id
    name = sample_id if safe else quote(sample_id)
    if len(name) <= LONGEST:
        return name
    # Servers refuse long headers; the digest keeps ids with one beginning apart.
    return f"{name[: LONGEST - _DIGEST - 1]}~{hashlib.sha256(sample_id.encode()).hexdigest()[:_DIGEST]}"
