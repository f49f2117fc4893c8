"""What tests of runs that go on elsewhere wait for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemo_evaluator.testing import FakeEndpoint

PATIENCE = 30.0


def wait_for(what: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE:g} s in vain")


def status(folder: Path) -> dict[str, Any]:
    """What another process is told."""
    done = subprocess.run(
        [sys.executable, "-m", "nemo_evaluator", "status", str(folder), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 2:
        assert "holds no run" in done.stderr or "no folder" in done.stderr
        return {"state": "none", "totals": {"answered": 0}}
    document: dict[str, Any] = json.loads(done.stdout)
    return {**document, "code": done.returncode}


def answers(endpoint: FakeEndpoint, count: int) -> Callable[[], bool]:
    return lambda: endpoint.count >= count
