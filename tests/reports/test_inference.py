"""Intervals cover what they say, p-values are what a table says, and false discoveries stay rare."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, wilcoxon

from reports.inference import (
    discoveries,
    independent_contrast,
    independent_ratio,
    jackknife_contrast,
    mean_contrast,
    mean_estimate,
    repeats_ratio,
    rounds_ratio,
)

# A compiled library may have told the processor to flush subnormal numbers.
finite = st.floats(-100, 100, allow_subnormal=False)
width = st.floats(0, 10, allow_subnormal=False)


@given(finite, width, width, finite, width, width)
def test_independent_differences_turn_round(
    a: float, al: float, ah: float, b: float, bl: float, bh: float
) -> None:
    one, two = (a, a - al, a + ah), (b, b - bl, b + bh)
    found, back = independent_contrast(one, two), independent_contrast(two, one)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= b - a <= found.high
    assert np.allclose((back.low, back.high), (-found.high, -found.low), atol=1e-9)
    assert found.p is not None
    assert 0 <= found.p <= 1
    assert independent_contrast((a, None, None), two).p is None


def test_p_is_5_percent_where_the_interval_touches_zero() -> None:
    found = independent_contrast((0.0, -3.0, 3.0), (5.0, 1.0, 9.0))
    assert (found.low, found.high) == (0.0, 10.0)
    assert found.p == pytest.approx(0.05)
    ratio = independent_ratio((1.0, 1.0, 1.0), (2.0, 1.0, 4.0))
    assert (ratio.value, ratio.low, ratio.high, ratio.p) == pytest.approx((2, 1, 4, 0.05))
    assert independent_ratio((0.0, 0.0, 0.0), (2.0, 1.0, 4.0)).p is None


def test_shared_noise_drops_out_of_paired_differences() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(size=20)
    a, b = 10 + shared, 12 + shared + 0.01 * generator.normal(size=20)
    paired = jackknife_contrast(10.0, 12.0, a, b)
    assert paired.paired
    assert paired.value == 2
    assert paired.high - paired.low < 0.5  # type: ignore[operator]
    alone = jackknife_contrast(10.0, 12.0, a, generator.permutation(b))
    assert alone.high - alone.low > 5  # type: ignore[operator]
    same = jackknife_contrast(10.0, 10.0, a, a)
    assert (same.low, same.high, same.p) == (10 - 10, 0, 1.0)


def test_jackknife_of_means_is_students_interval() -> None:
    """For a mean the delete-one jackknife is the textbook standard error."""
    samples = np.random.default_rng(1).normal(size=(2, 30))
    without = (samples.sum(axis=1, keepdims=True) - samples) / 29
    found = jackknife_contrast(*samples.mean(axis=1), *without)
    expected = mean_contrast(samples[0], samples[1])
    assert (found.low, found.high, found.p) == pytest.approx((expected.low, expected.high, expected.p))
    assert mean_estimate([3.0]) == (3.0, None, None)


def test_intervals_cover_their_share() -> None:
    generator = np.random.default_rng(2)
    hits = dict.fromkeys(("mean", "paired", "ratio"), 0)
    for _ in range(600):
        low, high = mean_estimate(generator.normal(size=8))[1:]
        hits["mean"] += low <= 0 <= high  # type: ignore[operator]
        shared = generator.normal(size=12)
        paired = mean_contrast(shared, shared + 1 + 0.3 * generator.normal(size=12))
        hits["paired"] += paired.low <= 1 <= paired.high  # type: ignore[operator]
        a, b = np.exp(0.2 * generator.standard_t(3, size=(2, 7)))
        ratio = repeats_ratio(a, 1.5 * b)
        hits["ratio"] += ratio.low <= 1.5 <= ratio.high  # type: ignore[operator]
    for name, count in hits.items():
        assert 0.93 <= count / 600 <= 0.985, name


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 5), (7, 9), (1, 6), (60, 50)])
def test_ratio_of_repeats_has_the_rank_sum_p_value(n: int, m: int) -> None:
    generator = np.random.default_rng(n)
    a, b = np.exp(generator.normal(size=n)), np.exp(0.5 + generator.normal(size=m))
    found = repeats_ratio(a, b)
    if n == 1:
        assert (found.low, found.p) == (None, None)
        return
    method = "exact" if max(n, m) <= 40 else "asymptotic"
    assert found.p == pytest.approx(mannwhitneyu(a, b, method=method).pvalue, rel=1e-6)
    assert found.low <= found.value <= found.high  # type: ignore[operator]
    if found.p < 0.05:
        assert not found.low <= 1 <= found.high  # type: ignore[operator]


@pytest.mark.parametrize("n", [1, 2, 6, 9, 24])
def test_ratio_of_rounds_has_the_signed_rank_p_value(n: int) -> None:
    generator = np.random.default_rng(n)
    drift = np.exp(generator.normal(size=n))  # of the machine, the same in both of a round
    a = drift * np.exp(0.02 * generator.normal(size=n))
    b = 1.05 * drift * np.exp(0.02 * generator.normal(size=n))
    found = rounds_ratio(a, b)
    if n == 1:
        assert (found.low, found.p) == (None, None)
        return
    assert found.p == pytest.approx(wilcoxon(np.log(b / a), method="exact").pvalue, rel=1e-6)
    assert found.low <= found.value <= found.high  # type: ignore[operator]
    assert found.value == pytest.approx(1.05, rel=0.08)
    if found.p < 0.05:
        assert not found.low <= 1 <= found.high  # type: ignore[operator]


def test_rounds_cover_the_ratio_whatever_the_drift() -> None:
    generator = np.random.default_rng(5)
    hits = 0
    for _ in range(600):
        drift = np.exp(generator.normal(size=6))
        a, b = drift * np.exp(0.1 * generator.standard_t(3, size=(2, 6)))
        found = rounds_ratio(a, 1.5 * b)
        hits += found.low <= 1.5 <= found.high  # type: ignore[operator]
    assert 0.94 <= hits / 600 <= 0.99  # 0.969 by the rule


def test_repeats_without_a_difference_show_none() -> None:
    assert repeats_ratio([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).p == 1.0
    assert math.isclose(repeats_ratio([1.0, 2.0], [2.0, 4.0]).value, 2.0)


def test_discoveries_on_the_published_example() -> None:
    """Benjamini and Hochberg 1995, section 4: fifteen p-values, four discoveries at 5 %."""
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p_values += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    assert sum(discoveries(p_values)) == 4
    assert discoveries([None, *reversed(p_values)]) == [False] * 12 + [True] * 4
    assert discoveries([]) == []
    # Each is beyond its own threshold but the last carries the others (step up).
    assert discoveries([0.03, 0.04]) == [True, True]


def test_false_discoveries_stay_below_their_rate() -> None:
    generator = np.random.default_rng(3)
    shares = []
    for _ in range(400):
        p = generator.uniform(size=40)
        p[:10] = generator.uniform(0, 0.004, size=10)  # ten true differences
        found = np.array(discoveries(p.tolist()))
        shares.append(found[10:].sum() / max(found.sum(), 1))
    assert 0.01 < np.mean(shares) < 0.05
