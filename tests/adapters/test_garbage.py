from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from nemo_evaluator.adapters.garbage import YOUNG, seldom_collected


@pytest.fixture(autouse=True)
def threshold() -> Iterator[None]:
    former = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*former)


def test_cycles_are_searched_for_less_often_while_somebody_wants_it() -> None:
    with seldom_collected():
        with seldom_collected():
            assert gc.get_threshold() == (YOUNG, 10, 10)
        assert gc.get_threshold() == (YOUNG, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [0, YOUNG + 1])
def test_a_process_that_chose_for_itself_keeps_its_choice(own: int) -> None:
    gc.set_threshold(own, 10, 10)
    with seldom_collected():
        assert gc.get_threshold() == (own, 10, 10)
    assert gc.get_threshold() == (own, 10, 10)
