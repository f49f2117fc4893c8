"""The environment that harness commands get."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from nemo_evaluator import env


def harness_environment(
    environ: Mapping[str, str], folder: Path, *, terminal: bool = False, shown: bool = False
) -> dict[str, str]:
    """The environment of a harness: the caller's, with the commands that are installed beside Python on PATH.

    Args:
        environ: the caller's environment.
        folder: of the harness's definition; `$NEMO_EVALUATOR_HARNESS_FOLDER` in its commands.
        terminal: whether the harness's output ends up on a terminal.
        shown: whether the run shows its progress, so that the harness need not.
    """
    here = str(Path(sys.executable).parent)
    path = environ.get("PATH", os.defpath)
    folders = path.split(os.pathsep)
    bar = {env.PROGRESS_BAR: "0" if shown else "1"} if terminal or shown else {}
    added = {env.HARNESS_FOLDER: str(folder.resolve()), **bar}
    return {**environ, **added, "PATH": path if here in folders else os.pathsep.join([here, path])}
