"""Where lines about requests and answers go: to `logging`, and into the folder of the run."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TextIO

from nemo_evaluator.adapters.context import Context

LOGGER = "nemo_evaluator.adapters.requests"
"""The logger of these lines."""

FILE = Path("logs", "requests.log")
"""Has them too, in the folder of the run: whoever asks for them finds them, whatever level is shown elsewhere."""

_log = logging.getLogger(LOGGER)


class ExchangeLog:
    """One log of a run, shared by its chains; lines are added to what earlier starts of the run wrote.

    Args:
        folder: of the run; None to write no file.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        self._file: TextIO | None = None

    def is_heard(self, level: int) -> bool:
        """Whether a line of this level goes anywhere."""
        return self._path is not None or _log.isEnabledFor(level)

    def write(self, level: int, text: str) -> None:
        """Write one line."""
        _log.log(level, "%s", text)
        if self._path is None:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                file = os.open(self._path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
                self._file = os.fdopen(file, "a", encoding="utf-8", errors="backslashreplace")
                # An earlier start's, or one that was copied here, may have another mode.
                os.fchmod(file, 0o600)
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime())
            self._file.write(f"{moment} {logging.getLevelName(level)} {text}\n")
            self._file.flush()
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error.strerror)
            self.close()
            self._path = None

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()


def exchange_log_of(context: Context) -> ExchangeLog:
    """The one log of the run."""
    return context.shared(ExchangeLog, "", lambda: ExchangeLog(context.output_dir))
