"""What the logging interceptors write, as their tests read it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from tests.adapters.conftest import Client

from nemo_evaluator.adapters.proxy import RunningProxy

LOGGER = "nemo_evaluator.adapters.requests"
SECRET = "hunter2-s3cret"


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """The lines of this level."""
    return [record.getMessage() for record in caplog.records if record.name == LOGGER and record.levelno == level]


def check_parts(
    proxy: RunningProxy, client: Client, caplog: pytest.LogCaptureFixture, *, count: int, parts: dict[str, Any]
) -> None:
    """Of three requests so many are logged, each with the parts (`headers`, `body`) that are to be there."""
    for _ in range(3):
        client.post(proxy.url, {"a": 1})
    logged = lines(caplog)
    assert len(logged) == count
    for name, is_there in parts.items():
        assert all((f"{name}: {{" in line) == is_there for line in logged)
