"""What a run has spent: over all its starts, by endpoint."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nemo_evaluator.adapters.context import Context
from nemo_evaluator.errors import MisconfigurationError
from nemo_evaluator.files import write_atomically

LEDGER_FILE = "budget.json"
"""Name of the file, in the folder of the run."""

_VERSION = 1
_SAVE_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Spent:
    """Amounts spent at one endpoint, or at several.

    Attributes:
        requests: exchanges that were begun, repetitions included.
        answers: of these, those that ended with a usable answer.
        prompt_tokens: as reported by the endpoint.
        completion_tokens: likewise.
        cost: in the currency of the prices.
        in_flight: exchanges under way now.
    """

    requests: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    in_flight: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of prompts and completions."""
        return self.prompt_tokens + self.completion_tokens


_KEPT = tuple(field.name for field in fields(Spent) if field.name != "in_flight")


class Ledger:
    """Counts for all chains of a run. Used in the proxy's event loop, apart from reading.

    It is written to the folder of the run at most once a second and at the end: after a `kill -9` the last second's
    exchanges, and those under way, are missing from it.

    Args:
        folder: of the run; None to keep nothing.

    Raises:
        MisconfigurationError: the file of an earlier start cannot be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / LEDGER_FILE
        self._routes: dict[str, Spent] = {}
        self._currency: str | None = None
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._is_changed = False
        self._writing = threading.Lock()
        self._versions = 0
        self._written = 0
        if self._path is not None and self._path.exists():
            self._load(self._path)

    @property
    def currency(self) -> str | None:
        """The currency of all costs; None when there are no prices."""
        return self._currency

    def use_currency(self, currency: str) -> None:
        """Count costs in `currency`.

        Raises:
            MisconfigurationError: there are costs in another one.
        """
        if self._currency not in (None, currency):
            raise MisconfigurationError(
                f"budget: costs of this run are in {self._currency} already, and cannot be added to costs in "
                f"{currency}. Use one currency for all endpoints, or another output directory."
            )
        self._currency = currency

    def of(self, route: str) -> Spent:
        """What was spent at one endpoint; counts on as the run does."""
        return self._routes.setdefault(route, Spent())

    def total(self) -> Spent:
        """What was spent at all endpoints, now."""
        spent = tuple(self._routes.values())
        if len(spent) == 1:
            return spent[0]
        return Spent(*(sum(getattr(one, field.name) for one in spent) for field in fields(Spent)))

    def changed(self) -> None:
        """Something was spent, or is not under way any more: save it soon, and let the next one waiting look."""
        self._is_changed = True
        if self._timer is None and self._path is not None:
            self._timer = asyncio.get_running_loop().call_later(_SAVE_SECONDS, self._save_aside)
        self.wake_next()

    async def change(self) -> None:
        """Wait for a change. Whoever goes on because of it calls `wake_next`: others may be able to go on too."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.wake_next()
            raise
        finally:
            self._waiting.pop(turn, None)

    def wake_next(self) -> None:
        """Let one of those waiting for a change look."""
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return

    def close(self) -> None:
        """Save what is not saved yet."""
        if self._timer is not None:
            self._timer.cancel()
        if self._is_changed:
            self._write(*self._text())

    def _save_aside(self) -> None:
        # Writing waits for the disk; the event loop must not.
        self._timer = None
        asyncio.get_running_loop().run_in_executor(None, self._write, *self._text())

    def _text(self) -> tuple[int, str]:
        self._is_changed = False
        self._versions += 1
        routes = {
            route: {name: value for name, value in asdict(spent).items() if name in _KEPT}
            for route, spent in self._routes.items()
        }
        document = {"version": _VERSION, "currency": self._currency, "endpoints": routes}
        return self._versions, json.dumps(document, indent=2) + "\n"

    def _write(self, version: int, text: str) -> None:
        if self._path is None:
            return
        with self._writing:
            if version < self._written:
                return
            try:
                write_atomically(self._path, text)
            except OSError as error:
                _log.warning("%s cannot be written: %s; a resumed run will not know all it spent", self._path, error)
                return
            self._written = version

    def _load(self, path: Path) -> None:
        try:
            document = json.loads(path.read_bytes())
            if document["version"] != _VERSION:
                raise ValueError(f"version {document['version']!r} is not known")  # noqa: TRY301  told like the others
            self._currency = document["currency"]
            self._routes = {route: _spent(amounts) for route, amounts in document["endpoints"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MisconfigurationError(
                f"{path}: what this run has spent so far cannot be read: {error}. Remove the file to count from zero."
            ) from error


def _spent(amounts: dict[str, Any]) -> Spent:
    for name in _KEPT:
        if isinstance(amounts[name], bool) or not isinstance(amounts[name], int | float) or amounts[name] < 0:
            raise ValueError(f"{name} is {amounts[name]!r}")
    return Spent(**{name: amounts[name] for name in _KEPT})


def ledger_of(context: Context) -> Ledger:
    """What the run of `context` has spent: one ledger for all of its chains.

    It counts those requests only that pass the interceptor `budget`.

    Raises:
        MisconfigurationError: as `Ledger`.
    """
    return context.shared(Ledger, "", lambda: Ledger(context.output_dir))
