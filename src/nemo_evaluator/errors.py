"""Everything that can go wrong in a way a user can act on, as one tree with one exit code each.

* EvaluatorError                 1
  * UsageError                   2   the command line or the configuration is wrong
    * MisconfigurationError      2   (the name that the compatible interface uses)
    * DefinitionError            2   a framework.yml is wrong
  * EndpointError                3   the model endpoint cannot be used
    * EndpointAwayError          3   it was there and went away, for longer than the run waits
  * HarnessError                 4   the harness failed, or was ended by its time limit
  * ResultsError                 5   the harness ended well but its results cannot be read
  * SelfTestError                6   a self-test verdict differs from the expected one
  * DataError                    7   a dataset is missing, gated or damaged, or a stored answer that a replay needs
  * BudgetError                  8   the budget of the run is used up

A run ended by a signal exits with 128 + the signal's number (130 for Ctrl-C, 143 for SIGTERM).
Messages say what was wrong, where, what is allowed and what to do next. Only `cli` prints them.
"""

from __future__ import annotations


class EvaluatorError(Exception):
    """Base of all expected failures; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(EvaluatorError):
    """The command line or the configuration is wrong; nothing was started."""

    exit_code = 2


class MisconfigurationError(UsageError):
    """A value is missing, unknown, of the wrong type or out of range."""


class DefinitionError(UsageError):
    """A framework definition is wrong. Other definitions stay usable."""


class EndpointError(EvaluatorError):
    """The endpoint does not answer, refuses the key, or is not of the declared type."""

    exit_code = 3


class EndpointAwayError(EndpointError):
    """The endpoint was there and went away; what was answered is kept, and a start goes on when it is back."""


class HarnessError(EvaluatorError):
    """The harness process failed or exceeded `config.params.time_limit`."""

    exit_code = 4


class ResultsError(EvaluatorError):
    """The harness left no results, or results that are not numbers."""

    exit_code = 5


class SelfTestError(EvaluatorError):
    """A known answer did not get its expected verdict."""

    exit_code = 6


class DataError(EvaluatorError):
    """A dataset cannot be had: missing, gated, offline, or not of the expected form. Or a replay asked for an answer
    that is not in the store.
    """  # noqa: D205  one sentence for each of the two

    exit_code = 7


class BudgetError(EvaluatorError):
    """The run has used up its budget; what was answered is kept, and a start with a larger one goes on from there."""

    exit_code = 8


class InterruptedRun(EvaluatorError):  # noqa: N818  an interruption is not an error of anybody
    """A signal, or a request that counts as one, ended the run; what was finished stays on disk and a new start goes
    on from there.
    """  # noqa: D205  one sentence, too long for one line

    def __init__(self, signal_number: int, *, reason: str | None = None) -> None:
        super().__init__(f"{reason or f'ended by signal {signal_number}'}; start the same command again to go on")
        self.exit_code = 128 + signal_number
