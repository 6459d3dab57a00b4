"""Intervals: exact binomial levels, known values, and the coverage they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from harness.quality.intervals import (
    balanced_groups,
    group_count,
    jackknife_interval,
    jackknife_sd,
    leave_one_out,
    left_over,
    median_coverage,
    median_interval,
    wilson_interval,
)

finite = st.floats(-1e6, 1e6)


def test_median_interval_unpacks_and_says_its_level() -> None:
    found = median_interval([3, 1, 2, 6, 5, 4])
    assert tuple(found) == (3.5, 1, 6)
    assert (found.n, found.level) == (6, 1 - 2 / 64)


@pytest.mark.parametrize(("n", "level"), [(1, 0.0), (2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375)])
def test_too_few_samples_give_their_range_and_its_real_level(n: int, level: float) -> None:
    found = median_interval(np.arange(n))
    assert (found.low, found.high, found.n, found.level) == (0, n - 1, n, level)


@given(st.lists(finite, min_size=1, max_size=60), st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_median_interval_is_the_narrowest_symmetric_pair_at_its_level(
    samples: list[float], level: float
) -> None:
    found = median_interval(samples, level)
    ordered = sorted(samples)
    n = len(ordered)
    assert found.low <= found.value <= found.high
    ranks = [r for r in range(1, n // 2 + 1) if 1 - 2 * binom.cdf(r - 1, n, 0.5) >= level]
    rank = max(ranks, default=1)
    assert (found.low, found.high) == (ordered[rank - 1], ordered[n - rank])
    assert found.level == pytest.approx(1 - 2 * binom.cdf(rank - 1, n, 0.5), abs=1e-12)


def test_median_interval_covers_the_median_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).exponential(size=(4000, 11))
    found = [median_interval(row) for row in samples]
    covered = np.mean([f.low <= math.log(2) <= f.high for f in found])
    assert found[0].level == median_coverage(11, 2)
    assert covered == pytest.approx(found[0].level, abs=0.01)


@pytest.mark.parametrize("samples", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf]])
def test_samples_without_a_median_are_refused(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="samples must be"):
        median_interval(samples)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_are_shares(level: float) -> None:
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        median_interval([1, 2, 3], level)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(5, 10, 0.2366, 0.7634), (0, 10, 0, 0.2775), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_known_values(successes: int, n: int, low: float, high: float) -> None:
    found = wilson_interval(successes, n)
    assert tuple(found) == pytest.approx((successes / n, low, high), abs=5e-5)


@given(st.integers(1, 10**6), st.data())
def test_wilson_stays_around_the_share_and_inside_0_1(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    found = wilson_interval(successes, n)
    mirrored = wilson_interval(n - successes, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.high > found.low
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high), abs=1e-9)


def test_wilson_refuses_impossible_counts() -> None:
    with pytest.raises(ValueError, match="successes must lie"):
        wilson_interval(11, 10)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=300), st.integers(2, 25))
def test_groups_are_balanced_over_all_and_within_each_class(labels: list[int], groups: int) -> None:
    dealt = balanced_groups(labels, groups)
    used = min(groups, len(labels))
    for members in [dealt, *(dealt[np.array(labels) == c] for c in set(labels))]:
        sizes = np.bincount(members, minlength=used)
        assert len(sizes) == used
        assert sizes.max() - sizes.min() <= 1


def test_groups_hold_every_class_where_labels_repeat_in_order() -> None:
    labels = np.arange(1000) % 10
    dealt = balanced_groups(labels, 20)
    table = np.zeros((20, 10), dtype=int)
    np.add.at(table, (dealt, labels), 1)
    assert (table == 5).all()


@pytest.mark.parametrize(
    ("n", "classes", "groups", "left"),
    [
        (100, 10, 10, 0),
        (128, 10, 12, 8),  # twelve of each class, and one more of eight
        (300, 10, 15, 0),
        (500, 10, 10, 0),
        (1000, 10, 20, 0),
        (5000, 10, 20, 0),
        (230, 10, 11, 10),  # 23 of each: two a group but for one
        (64, 10, 20, 64),  # fewer of a class than ten: in no equal share
        (50_000, 1000, 10, 0),
        (5000, 1000, 20, 5000),
        (500, 1, 20, 0),
    ],
)
def test_groups_are_as_many_as_deal_the_classes_out(n: int, classes: int, groups: int, left: int) -> None:
    labels = np.arange(n) % classes
    assert group_count(labels) == groups
    assert group_count(np.sort(labels)) == groups
    assert left_over(labels, groups) == left
    assert balanced_groups(labels).max() + 1 == min(groups, n)


@given(st.lists(finite, min_size=2, max_size=40))
def test_jackknife_of_a_mean_is_its_standard_error(samples: list[float]) -> None:
    values = np.array(samples)
    replicates = leave_one_out(values) / (len(values) - 1)
    expected = values.std(ddof=1) / math.sqrt(len(values))
    assert jackknife_sd(replicates) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_jackknife_interval_is_centred_on_the_statistic() -> None:
    found = jackknife_interval(7.0, [1.0, 2.0, 3.0], n=30)
    sd = math.sqrt(2 / 3 * 2)
    assert found.value == 7
    assert (found.high - 7, 7 - found.low) == pytest.approx((4.302653 * sd,) * 2, rel=1e-6)  # t, 2 degrees


@pytest.mark.parametrize(("strata", "groups"), [([1], 20), ([1, 2], 1)])
def test_groups_need_two_of_each(strata: list[int], groups: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        balanced_groups(strata, groups)
