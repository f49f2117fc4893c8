"""Which samples got answers that were cut, refused or empty."""

from __future__ import annotations

from hashlib import blake2b

from nemo_evaluator.adapters.facts import AnswerFacts
from nemo_evaluator.adapters.sample import is_named

_HASH_BYTES = 8


class SampleOutcomes:
    """Remembers affected samples only, each by 8 bytes, so that a million good answers take no memory.

    A sample that the harness named counts by its last answer: when the harness asks again and is answered well, it is
    affected no more. One that goes by its content may be the same question asked several times on purpose, which looks
    like a repetition; it counts as affected when any of its answers was.
    """

    def __init__(self) -> None:
        self._affected: dict[bytes, tuple[bool, bool, bool]] = {}
        self.named = 0
        """Answers to samples that the harness named."""
        self.unnamed = 0
        """Answers to samples that go by their content."""
        self.truncated = 0
        """Samples whose answer was cut at the most tokens allowed."""
        self.refused = 0
        """Samples that a filter or the model refused to answer."""
        self.empty = 0
        """Samples whose answer says nothing and calls nothing."""

    @property
    def are_named(self) -> bool | None:
        """Whether the harness names all samples; None before the first answer."""
        return self.unnamed == 0 if self.named or self.unnamed else None

    def note(self, sample: str, facts: AnswerFacts) -> None:
        """A usable answer came for `sample`."""
        by_name = is_named(sample)
        if by_name:
            self.named += 1
        else:
            self.unnamed += 1
        now = (facts.is_truncated, facts.is_refused, facts.is_empty)
        if not any(now) and not (by_name and self._affected):
            return
        key = blake2b(sample.encode(errors="surrogatepass"), digest_size=_HASH_BYTES).digest()
        before = self._affected.get(key, (False, False, False))
        if not by_name:
            now = (now[0] or before[0], now[1] or before[1], now[2] or before[2])
        if any(now):
            self._affected[key] = now
        else:
            self._affected.pop(key, None)
        self.truncated += now[0] - before[0]
        self.refused += now[1] - before[1]
        self.empty += now[2] - before[2]
