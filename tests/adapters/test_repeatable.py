from __future__ import annotations

import errno
import gzip
import json
import socket
import ssl

import pytest
from multidict import CIMultiDict

from nemo_evaluator.adapters.failures import UpstreamFailure
from nemo_evaluator.adapters.messages import Response
from nemo_evaluator.adapters.repeatable import is_final_word, kind_of_failure


@pytest.mark.parametrize(
    ("code", "cause", "kind"),
    [
        ("connect_timeout", None, "unreachable"),
        ("connection_failed", ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "unreachable"),
        ("connection_failed", OSError(errno.EHOSTUNREACH, "no route"), "unreachable"),
        ("connection_failed", socket.gaierror(-2, "unknown name"), "unreachable"),
        ("connection_failed", ConnectionResetError(errno.ECONNRESET, "reset"), "broken"),
        ("connection_failed", None, "broken"),
        ("connection_failed", ssl.SSLCertVerificationError(1, "self-signed certificate"), "final"),
        ("stream_cut", None, "unusable"),
        ("unreadable_answer", None, "unusable"),
        ("timeout", None, "late"),
        ("answer_too_large", None, "final"),
        ("something_else", None, "final"),
    ],
)
def test_failures_are_told_apart(code: str, cause: Exception | None, kind: str) -> None:
    failure = UpstreamFailure("text", code=code)
    wrapped = RuntimeError("in between")
    wrapped.__cause__ = cause
    failure.__cause__ = wrapped if cause else None
    assert kind_of_failure(failure) == kind


QUOTA = json.dumps({"error": {"code": "insufficient_quota"}}).encode()


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({}, QUOTA, True),
        ({"Content-Encoding": "gzip"}, gzip.compress(QUOTA), True),
        ({"Content-Encoding": "gzip"}, QUOTA, False),
        ({}, b'{"error": {"code": 429, "type": "requests"}}', False),
        ({}, b'{"error": "insufficient_quota"}', False),
        ({}, b"<html>", False),
        ({"X-Should-Retry": "False"}, b"", True),
        ({"X-Should-Retry": "true"}, b"", False),
    ],
)
def test_the_final_word_is_heard(headers: dict[str, str], body: bytes, *, expected: bool) -> None:
    assert is_final_word(Response(429, CIMultiDict(headers), body)) is expected
