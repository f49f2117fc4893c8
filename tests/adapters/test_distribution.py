from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_evaluator.adapters.distribution import Distribution, Histogram

_values = st.lists(st.floats(1e-5, 1e8), min_size=1, max_size=200)


def _of(values: list[float]) -> Distribution:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram.frozen()


@given(values=_values, share=st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_at_most_five_per_cent_off(values: list[float], share: float) -> None:
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert _of(values).quantile(share) == pytest.approx(exact, rel=0.05)


@given(first=_values, second=_values)
def test_two_distributions_are_one(first: list[float], second: list[float]) -> None:
    merged, whole = _of(first).merged([_of(second)]), _of(first + second)
    assert (merged.counts, merged.count, merged.max) == (whole.counts, whole.count, whole.max)
    assert merged.sum == pytest.approx(whole.sum)


def test_nothing_has_no_quantiles() -> None:
    assert Distribution().quantile(0.5) is None
    assert Distribution().mean is None


def test_what_is_out_of_range_is_counted_in_the_outermost_classes() -> None:
    spread = _of([0.0, -1.0, 1e-30, 1e30])
    assert (spread.count, spread.max, len(spread.counts)) == (4, 1e30, 2)
