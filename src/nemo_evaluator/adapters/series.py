"""What happened when, in constant memory: a series of equal spans of time that grow as the run gets longer."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SPANS = 600


@dataclass(slots=True)
class Span:
    """What was counted within one span of time.

    Attributes:
        answers: complete answers of the endpoint, of any status.
        errors: exchanges that failed, answers that say so or cannot be used, and failures on this side.
        cached: answers from the store.
        prompt_tokens: of the answers.
        completion_tokens: of the answers.
        seconds: sum of the answers' latencies.
    """

    answers: int = 0
    errors: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def plus(self, other: Span) -> Span:
        """Both as one."""
        return Span(
            self.answers + other.answers,
            self.errors + other.errors,
            self.cached + other.cached,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Series:
    """A snapshot of a `TimeSeries`: spans of `width` seconds each, the first of them at the start; the last is open."""

    width: float = 1.0
    spans: tuple[Span, ...] = ()


class TimeSeries:
    """At most `MAX_SPANS` spans; when time runs over them, two become one, and all are twice as long.

    Args:
        start: the moment at which the first span begins, in seconds of the clock that `at` gets.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self._width = 1.0
        self._spans: list[Span] = []

    def at(self, moment: float) -> Span:
        """The span of `moment`, to be counted in at once; a moment before the start belongs to the first span."""
        number = max(0, int((moment - self._start) / self._width))
        while number >= MAX_SPANS:
            self._widen()
            number //= 2
        while number >= len(self._spans):
            self._spans.append(Span())
        return self._spans[number]

    def frozen(self) -> Series:
        """The state of this moment."""
        return Series(self._width, tuple(span.plus(Span()) for span in self._spans))

    def _widen(self) -> None:
        pairs = [self._spans[index : index + 2] for index in range(0, len(self._spans), 2)]
        self._spans = [pair[0].plus(pair[1]) if len(pair) > 1 else pair[0] for pair in pairs]
        self._width *= 2
