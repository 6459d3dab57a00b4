"""The rules of timing, on clocks that are told what to say."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from harness.measure.repeats import (
    MOST_WARMUPS,
    Budget,
    in_turn,
    is_narrow,
    is_steady,
    percentiles,
    ratio_interval,
    repeat,
    warm_up,
)
from harness.measure.turns import budget_of
from harness.quality.intervals import median_interval


def script(*seconds: float) -> Callable[[], float]:
    """A run that takes these seconds, one after the other, and the last ones for ever."""
    told = itertools.chain(seconds, itertools.repeat(seconds[-1]))
    return lambda: next(told)


def noisy(spread: float, middle: float = 1.0, seed: int = 0) -> Callable[[], float]:
    rng = np.random.default_rng(seed)
    return lambda: float(middle * (1 + spread * rng.standard_normal()))


# Warm-up --------------------------------------------------------------------------------------------------


def test_steady_is_within_five_percent_of_the_median():
    assert is_steady([1.0, 1.049, 0.951])
    assert not is_steady([1.0, 1.051, 1.0])


def test_warm_up_ends_when_three_in_a_row_agree():
    found = warm_up(script(3.0, 2.0, 1.01, 1.0, 1.0, 1.0), budget_s=100)
    assert (found.seconds, found.steady) == ([3.0, 2.0, 1.01, 1.0, 1.0], True)


def test_warm_up_never_ends_before_three_runs_whatever_they_cost():
    found = warm_up(script(50.0, 50.0, 50.0), budget_s=1)
    assert (len(found.seconds), found.steady) == (3, True)


@pytest.mark.parametrize(("budget_s", "runs"), [(1000, MOST_WARMUPS), (4, 4)])
def test_warm_up_that_never_agrees_is_given_up_and_says_so(budget_s, runs):
    found = warm_up(script(*[0.5, 1.5] * 20), budget_s)
    assert (len(found.seconds), found.steady) == (runs, False)


def test_a_run_made_before_counts_as_the_first():
    assert warm_up(script(1.0), 100, first_s=1.02).seconds == [1.02, 1.0, 1.0]


# Repeats --------------------------------------------------------------------------------------------------


def test_repeats_end_when_the_interval_is_narrow():
    found = repeat(script(1.0, 1.005, 0.995), Budget(seconds=1000))
    assert (len(found.seconds), found.stopped_by) == (6, "interval")  # five samples can't give 95 %


def test_repeats_go_on_until_the_interval_is_narrow():
    found = repeat(noisy(0.05), Budget(seconds=1000))
    assert found.stopped_by == "interval"
    assert is_narrow(median_interval(found.seconds))
    assert not is_narrow(median_interval(found.seconds[:-1]))
    assert len(found.seconds) > 6


def test_repeats_end_with_the_budget():
    found = repeat(script(*[0.5, 1.5] * 99), Budget(seconds=8))
    assert (len(found.seconds), found.stopped_by) == (8, "budget")
    assert len(repeat(script(*[0.5, 1.5] * 99), Budget(seconds=1e9, most=20)).seconds) == 20


def test_the_least_number_is_made_past_the_budget_but_not_past_patience():
    assert len(repeat(script(*[10.0, 30.0] * 9), Budget(seconds=1, least=5)).seconds) == 5
    assert len(repeat(script(*[10.0, 30.0] * 9), Budget(seconds=1, least=5, patience_s=35)).seconds) == 2
    assert len(repeat(script(1e6), Budget(seconds=1, least=5)).seconds) == 1


def test_runs_made_anyway_count_as_repeats_and_against_the_budget():
    assert repeat(script(9.0), Budget(seconds=5), [1.0, 2.0, 1.0, 2.0, 1.0]).seconds == [
        1.0,
        2.0,
        1.0,
        2.0,
        1.0,
    ]
    assert len(repeat(script(9.0), Budget(seconds=5, least=5), [1.0]).seconds) == 5


# In turn --------------------------------------------------------------------------------------------------


def recorded(names: str, calls: list[str], seconds: Sequence[float]) -> list[Callable[[], float]]:
    def run(name: str, took: float) -> float:
        calls.append(name)
        return took

    return [lambda name=name, took=took: run(name, took) for name, took in zip(names, seconds, strict=True)]


def test_rounds_go_forwards_and_backwards():
    calls: list[str] = []
    found = in_turn(recorded("abc", calls, [1.0, 2.0, 3.0]), Budget(seconds=0, least=3))
    assert "".join(calls) == "abccba" * 2
    assert found == [[1.0] * 4, [2.0] * 4, [3.0] * 4]


def test_drift_of_the_machine_is_not_in_the_ratio():
    """A machine that slows down by 3 % with every run, whichever it is."""
    speed = itertools.count()
    runs = [lambda base=base: base * 1.03 ** next(speed) for base in (1.0, 2.0)]
    first, second = in_turn(runs, Budget(seconds=0, least=20))
    assert ratio_interval(second, first).value == pytest.approx(2.0, rel=0.002)
    assert np.median(second[10:]) / np.median(first[:10]) > 2.5  # what two separate lists would say


def test_rounds_end_when_every_ratio_is_narrow():
    calls: list[str] = []
    assert len(in_turn(recorded("ab", calls, [1.0, 2.0]), Budget(seconds=1e9))[0]) == 6
    runs = [script(1.0), script(2.0), noisy(0.05)]
    rounds = in_turn(runs, Budget(seconds=1e9))
    assert is_narrow(ratio_interval(rounds[2], rounds[0]))
    assert len(rounds[0]) % 2 == 0
    assert len(rounds[0]) > 6


@pytest.mark.parametrize("cells", [2, 32])
def test_many_cells_get_the_least_number_of_rounds_as_two_do(cells: int):
    runs = [script(5.0)] * cells
    assert len(in_turn(runs, budget_of(cells, rounds=6))[0]) == 6
    endless = [script(1000.0)] * cells
    assert len(in_turn(endless, budget_of(cells, rounds=6))[0]) == 2


# Percentiles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "allowed"),
    [(1, 1), (43, 1), (44, 2), (89, 2), (90, 3), (458, 3), (459, 4)],
)
def test_percentiles_only_where_the_number_of_samples_allows(n, allowed):
    values, reasons = percentiles([float(x) for x in range(n)])
    names = ("p50", "p90", "p95", "p99")
    assert [name for name in names if values[name] is not None] == list(names[:allowed])
    assert set(reasons) == set(names[allowed:])
    assert all(str(n) in reason for reason in reasons.values())


def test_percentiles_are_samples_that_so_many_do_not_exceed():
    values, _ = percentiles([float(x) for x in range(1000, 0, -1)])
    assert values == {"p50": 500.5, "p90": 900.0, "p95": 950.0, "p99": 990.0}
