"""Differences between results with intervals and p-values, and what may be called a difference among many.

* Quality: delete-a-group jackknife of the difference itself. Cells of one seed meet the same labels and noise
  image by image, so the group that is left out is the same in both and shared noise drops out
  (Kott, Journal of Official Statistics 2001). Where the values without each group are not stored, or the
  cells share no random numbers, the bounds come from both intervals as if independent.
* Times: the ratio of two samples of repeats by Hodges and Lehmann (Annals of Mathematical Statistics 1963),
  with the interval and p-value of the rank-sum test (Mann and Whitney 1947): exact for independent repeats of
  any distribution. It knows nothing of drift between two runs of a machine. Rounds in which both were timed
  in turn are pairs, without that drift: the same by the signed-rank test (Wilcoxon 1945).
* Many comparisons: Benjamini and Hochberg (JRSS B 1995) hold the expected share of false ones among those
  called different; their number is printed beside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

LEVEL = 0.95
FALSE_DISCOVERY_RATE = 0.05
_LARGEST_EXACT = 40
"""Repeats of a side up to which the rank-sum distribution is counted out."""

Estimate = tuple[float, float | None, float | None]
"""value, low, high"""


@dataclass(frozen=True)
class Contrast:
    """A difference or ratio, its 95 % interval, and the p-value of "no difference" (None: not known)."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    paired: bool = False


def mean_estimate(samples: ArrayLike) -> Estimate:
    """Mean of independent samples [n] with Student's interval; no bounds from a single one."""
    values = np.asarray(samples, dtype=np.float64)
    mean = float(values.mean())
    if values.size < 2:
        return mean, None, None
    half = float(stdtrit(values.size - 1, (1 + LEVEL) / 2)) * _standard_error(values)
    return mean, mean - half, mean + half


def mean_contrast(a: ArrayLike, b: ArrayLike) -> Contrast:
    """Mean of B - A over pairs: samples [n] of the same images in both. Needs two pairs."""
    differences = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    mean = float(differences.mean())
    return _student(mean, _standard_error(differences), differences.size - 1)


def jackknife_contrast(
    a: float, b: float, without_a: NDArray[np.floating], without_b: NDArray[np.floating]
) -> Contrast:
    """B - A with the jackknife of the difference; without: float [G], the same groups left out in both."""
    differences = np.asarray(without_b, np.float64) - np.asarray(without_a, np.float64)
    groups = differences.size
    variance = (groups - 1) / groups * float(((differences - differences.mean()) ** 2).sum())
    return _student(b - a, math.sqrt(variance), groups - 1)


def independent_contrast(a: Estimate, b: Estimate) -> Contrast:
    """B - A from two independent estimates and their 95 % intervals.

    MOVER, the method of variance estimates recovery (Zou and Donner, Statistics in Medicine 2008): exact for
    normal estimates, and sound for lopsided intervals. Cells that share their random numbers differ by less
    than independent ones, so for them the bounds are wide, never narrow. The p-value takes the half towards
    zero as normal.
    """
    (value_a, low_a, high_a), (value_b, low_b, high_b) = a, b
    change = value_b - value_a
    if low_a is None or high_a is None or low_b is None or high_b is None:
        return Contrast(change, None, None, None)
    below = math.hypot(value_b - low_b, high_a - value_a)
    above = math.hypot(high_b - value_b, value_a - low_a)
    towards_zero = below if change > 0 else above
    z = abs(change) / towards_zero * float(ndtri((1 + LEVEL) / 2)) if towards_zero else math.inf
    p = 2 * float(ndtr(-z)) if change else 1.0
    return Contrast(change, change - below, change + above, p)


def independent_ratio(a: Estimate, b: Estimate) -> Contrast:
    """B / A of two positive estimates: :func:`independent_contrast` of their logarithms."""
    if min(x for x in (*a, *b) if x is not None) <= 0:
        return Contrast(b[0] / a[0] if a[0] else math.nan, None, None, None)
    found = independent_contrast(_logs(a), _logs(b))
    low, high = (None if bound is None else math.exp(bound) for bound in (found.low, found.high))
    return Contrast(b[0] / a[0], low, high, found.p)


def repeats_ratio(a: Sequence[float], b: Sequence[float]) -> Contrast:
    """B / A of two sets of independent positive repeats: Hodges and Lehmann's shift of the logarithms.

    With three repeats a side the interval is the whole range of ratios and p at least 0.1; with five p
    reaches 0.008. Without two a side there are no bounds.
    """
    logs_a, logs_b = np.log(np.asarray(a, float)), np.log(np.asarray(b, float))
    ratios = np.sort((logs_b[:, None] - logs_a[None, :]).ravel())  # [n_b * n_a]
    value = math.exp(float(np.median(ratios)))
    if min(len(logs_a), len(logs_b)) < 2:
        return Contrast(value, None, None, None)
    return _by_ranks(value, ratios, _rank_sum_cdf(len(logs_a), len(logs_b)), paired=False)


def rounds_ratio(a: Sequence[float], b: Sequence[float]) -> Contrast:
    """B / A of positive pairs [n], one a round: Hodges and Lehmann's centre of the logarithms' differences.

    With six rounds the interval is the range of their ratios and p reaches 0.031; with fewer it covers less
    than 95 % of such cases. Without two there are no bounds.
    """
    logs = np.log(np.asarray(b, float)) - np.log(np.asarray(a, float))
    n = len(logs)
    upper = np.triu_indices(n)
    walsh = np.sort((logs[upper[0]] + logs[upper[1]]) / 2)  # [n * (n + 1) / 2]
    value = math.exp(float(np.median(walsh)))
    if n < 2:
        return Contrast(value, None, None, None, paired=True)
    return _by_ranks(value, walsh, _signed_rank_cdf(n), paired=True)


def discoveries(p_values: Sequence[float | None], rate: float = FALSE_DISCOVERY_RATE) -> list[bool]:
    """Which comparisons may be called different: the expected share of false ones among them is ``rate``.

    Benjamini and Hochberg's step-up rule over all p-values that are known; None is never a discovery.
    """
    known = sorted(p for p in p_values if p is not None)
    passing = [p for rank, p in enumerate(known, start=1) if p <= rate * rank / len(known)]
    threshold = passing[-1] if passing else -1.0
    return [p is not None and p <= threshold for p in p_values]


def normal_sd(estimate: Estimate) -> float:
    """Standard deviation behind a 95 % interval, taken as normal; 0 where it has no bounds."""
    _, low, high = estimate
    if low is None or high is None:
        return 0.0
    return (high - low) / (2 * float(ndtri((1 + LEVEL) / 2)))


def _student(value: float, error: float, freedom: int) -> Contrast:
    if freedom < 1:
        return Contrast(value, None, None, None, paired=True)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(value) / error)) if error else float(value == 0)
    return Contrast(value, value - half, value + half, p, paired=True)


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else 0.0


def _logs(estimate: Estimate) -> Estimate:
    value, low, high = estimate
    return (
        math.log(value),
        None if low is None else math.log(low),
        None if high is None else math.log(high),
    )


def _by_ranks(
    value: float, logs: NDArray[np.float64], cumulative: NDArray[np.float64], paired: bool
) -> Contrast:
    """A ratio whose rank statistic counts ``logs`` [k] (sorted) below that of the true ratio; cumulative:
    [k + 1], P(statistic <= i)."""
    # At most rank - 1 of them are below the true one with probability P(statistic <= rank - 1) <= 2.5 %.
    rank = max(int(np.searchsorted(cumulative, (1 - LEVEL) / 2, side="right")), 1)
    below, equal = float((logs < 0).sum()), float((logs == 0).sum())
    statistic = below + equal / 2
    extreme = min(statistic, len(logs) - statistic)
    p = min(1.0, 2 * float(cumulative[math.floor(extreme)]))
    return Contrast(value, math.exp(float(logs[rank - 1])), math.exp(float(logs[-rank])), p, paired)


def _rank_sum_cdf(n: int, m: int) -> NDArray[np.float64]:
    """P(U <= u), u = 0..n*m, of the rank-sum statistic without a difference: counted, or normal if large."""
    if max(n, m) > _LARGEST_EXACT:
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        return np.asarray(ndtr((np.arange(n * m + 1) + 0.5 - n * m / 2) / spread))
    # Coefficients of the Gaussian binomial: prod (1 - x^(m+i)) / (1 - x^i), i = 1..n.
    counts = np.zeros(n * m + 1)
    counts[0] = 1
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):
            counts[u] -= counts[u - m - i]
        for u in range(i, n * m + 1):
            counts[u] += counts[u - i]
    return np.asarray(np.cumsum(counts) / math.comb(n + m, n))


def _signed_rank_cdf(n: int) -> NDArray[np.float64]:
    """P(W <= w), w = 0..n(n+1)/2, of the signed-rank statistic without a difference, counted out."""
    counts = np.ones(1)
    for rank in range(1, n + 1):
        without, with_it = np.pad(counts, (0, rank)), np.pad(counts, (rank, 0))
        counts = (without + with_it) / 2  # each rank is above or below with equal chance
    return np.asarray(np.cumsum(counts))
