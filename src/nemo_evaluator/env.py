"""The environment variables that the project reads, each named once."""

from __future__ import annotations

import os
from pathlib import Path

HARNESS_PATH = "NEMO_EVALUATOR_HARNESS_PATH"
"""Folders of harnesses, separated by `:`; each is a harness itself or holds harness folders."""
HARNESS_FOLDER = "NEMO_EVALUATOR_HARNESS_FOLDER"
"""Set for the commands of a definition: the folder that holds it, and whatever else they need."""

LOG_LEVEL = "NEMO_EVALUATOR_LOG_LEVEL"
LOG_LEVEL_COMPATIBLE = "LOG_LEVEL"
LOG_DIR = "NEMO_EVALUATOR_LOG_DIR"
GIT_HASH = "CORE_EVALS_GIT_HASH"
PROXY_HOST = "ADAPTER_HOST"
PROXY_PORT = "ADAPTER_PORT"
SSL_CERT_FILE = "SSL_CERT_FILE"
REQUESTS_CA_BUNDLE = "REQUESTS_CA_BUNDLE"

PROGRESS_BAR = "NEMO_EVALUATOR_PROGRESS_BAR"
"""Set for a harness that writes to a pipe: 1 when its output is passed on to a terminal, 0 when the run's progress is
shown by whoever started it."""
PROGRESS_SECONDS = "NEMO_EVALUATOR_PROGRESS_SECONDS"
"""Seconds between two lines about a run's progress where there is no terminal; 0 for no progress at all."""

IMAGE_NAME = "NEMO_EVALUATOR_IMAGE"
"""Name of the container image that the run is in; set by the image itself."""
IMAGE_DIGEST = "NEMO_EVALUATOR_IMAGE_DIGEST"
"""Digest of that image; only whoever starts the container knows it, so launchers set it."""
BASE_DIGEST = "NEMO_EVALUATOR_BASE_DIGEST"

HF_ENDPOINT = "HF_ENDPOINT"
HF_TOKEN = "HF_TOKEN"  # noqa: S105  the name of a variable, never its value
HF_HOME = "HF_HOME"
HF_HUB_OFFLINE = "HF_HUB_OFFLINE"


def get(name: str) -> str | None:
    """The value of variable `name`; None when it is unset or empty."""
    return os.environ.get(name) or None


def folders(name: str) -> list[Path]:
    """The folders listed in variable `name`, in order, without empty entries."""
    return [Path(entry) for entry in (get(name) or "").split(os.pathsep) if entry]
