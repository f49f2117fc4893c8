from __future__ import annotations

from nemo_evaluator.adapters.series import MAX_SPANS, TimeSeries


def test_a_moment_is_counted_in_its_span() -> None:
    series = TimeSeries(100.0)
    for moment in (100.0, 100.9, 102.5, 99.0):
        series.at(moment).answers += 1
    frozen = series.frozen()
    assert (frozen.width, [span.answers for span in frozen.spans]) == (1.0, [3, 0, 1])


def test_spans_double_and_lose_nothing() -> None:
    series = TimeSeries(0.0)
    seconds = 10 * MAX_SPANS + 7
    for second in range(seconds):
        span = series.at(float(second))
        span.answers += 1
        span.completion_tokens += 3
        span.seconds += 0.5
    frozen = series.frozen()
    assert frozen.width == 16
    assert len(frozen.spans) <= MAX_SPANS
    assert [span.answers for span in frozen.spans[:-1]] == [16] * (len(frozen.spans) - 1)
    assert sum(span.answers for span in frozen.spans) == seconds
    assert sum(span.completion_tokens for span in frozen.spans) == 3 * seconds
    assert sum(span.seconds for span in frozen.spans) == seconds / 2


def test_a_long_silence_widens_at_once() -> None:
    series = TimeSeries(0.0)
    series.at(0.0).errors += 1
    series.at(1_000_000.0).errors += 1
    frozen = series.frozen()
    assert len(frozen.spans) <= MAX_SPANS
    assert [span.errors for span in frozen.spans if span.errors] == [1, 1]
    assert frozen.width * len(frozen.spans) >= 1_000_000


def test_a_snapshot_stays() -> None:
    series = TimeSeries(0.0)
    series.at(0.0).cached += 1
    frozen = series.frozen()
    series.at(0.0).cached += 1
    assert frozen.spans[0].cached == 1
