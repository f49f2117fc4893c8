"""What models cost: a table of prices by name."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from nemo_evaluator import strict_yaml
from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.errors import MisconfigurationError

_PER = 1_000_000

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(BaseModel):
    """The price of one model, in the currency of the table.

    Attributes:
        input: for a million tokens of the prompt.
        output: for a million tokens of the completion, reasoning included.
        cached_input: for a million tokens of the prompt that the endpoint had in its prompt cache; None for `input`.
        request: for each answered request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    input: Amount = 0.0
    output: Amount = 0.0
    cached_input: Amount | None = None
    request: Amount = 0.0

    @property
    def needs_tokens(self) -> bool:
        """Whether the price of an answer depends on its tokens."""
        return bool(self.input or self.output or self.cached_input)

    def cost(self, facts: AnswerFacts) -> float | None:
        """What an answer costs; None when it does not report the tokens that this takes."""
        if self.needs_tokens and facts.prompt_tokens is None and facts.completion_tokens is None:
            return None
        prompt, completion = facts.prompt_tokens or 0, facts.completion_tokens or 0
        cached = min(facts.cached_tokens or 0, prompt)
        cached_price = self.input if self.cached_input is None else self.cached_input
        tokens = (prompt - cached) * self.input + cached * cached_price + completion * self.output
        return self.request + tokens / _PER


class PriceTable:
    """Finds the price of a model: its own entry, else the first whose name is a pattern that matches.

    Args:
        prices: by name of the model; `*`, `?` and `[…]` in a name stand for any text, any character, one of some.
    """

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = prices
        self._found: dict[str, Price | None] = {}

    def of(self, model: str) -> Price | None:
        """The price of `model`; None when the table has none."""
        if model not in self._found:
            self._found[model] = self._find(model)
        return self._found[model]

    def _find(self, model: str) -> Price | None:
        if model in self._prices:
            return self._prices[model]
        return next((price for name, price in self._prices.items() if fnmatchcase(model, name)), None)


def read_prices(path: Path) -> dict[str, Any]:
    """The table in a YAML or JSON file, not validated yet.

    Raises:
        MisconfigurationError: it cannot be read, or holds no mapping.
    """
    document = strict_yaml.load(path)
    if not isinstance(document, dict):
        raise MisconfigurationError(
            f"{path}: a table of prices is a mapping from names of models to prices, such as 'my-model: {{input: 0.5, "
            "output: 1.5}}' (per million tokens)"
        )
    return {str(name): price for name, price in document.items()}
