from __future__ import annotations

from nemo_evaluator.engine.progress import Progress, ProgressMeter


def test_reports_are_rare_and_the_last_one_is_complete() -> None:
    told: list[Progress] = []
    meter = ProgressMeter(planned=100_010, done=10, callback=told.append)
    for number in range(100_000):
        if number % 4 == 3:
            meter.failed_one()
        else:
            meter.scored(float(number % 4 == 0))
    meter.report()

    assert len(told) < 100
    last = told[-1]
    assert (last.done, last.planned, last.failed) == (100_010, 100_010, 25_000)
    assert last.score == 1 / 3
    assert last.rate > 0


def test_nothing_is_known_before_the_first_answer() -> None:
    told: list[Progress] = []
    ProgressMeter(planned=5, done=2, callback=told.append).report()

    (progress,) = told
    assert (progress.done, progress.planned, progress.failed, progress.score) == (2, 5, 0, None)


def test_without_a_callback_only_counts() -> None:
    meter = ProgressMeter(planned=2, done=0, callback=None)
    meter.scored(None)
    meter.failed_one()
    meter.report()

    assert (meter.done, meter.failed) == (2, 1)


def test_what_earlier_starts_had_is_told_apart() -> None:
    told: list[Progress] = []
    meter = ProgressMeter(planned=5, done=3, callback=told.append)
    meter.scored(1.0)
    meter.report()

    assert (told[-1].done, told[-1].kept, told[-1].score) == (4, 3, 1.0)
