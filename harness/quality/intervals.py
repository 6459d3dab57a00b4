"""Intervals behind every reported number.

* Timings: the median of the repeats, with an interval made of two of the samples themselves. It assumes no
  distribution; its level is a binomial sum and is exact for independent repeats whose number is fixed
  beforehand. A cell stops once the interval looks narrow, and intervals that are narrow by chance stop it
  first: they cover the median a few points less often than their level says, and those of cells that stopped
  so (``stopped_by`` "interval") a few more.
* Quality metrics: a delete-a-group jackknife. Deleting a twentieth of the images at a time (a tenth at most,
  ``group_count``) costs twenty evaluations, and the finite-sample bias of metrics such as the Fréchet
  distance is the same in all of them, so it drops out of their spread. The ordinary bootstrap repeats images
  within a resample, which adds the bias a second time: its percentiles are not used for quality metrics.
* Shares (class accuracy): Wilson's score interval, which stays inside 0..1 and works at 0 and at n.

Sources: order-statistic interval of a median (David & Nagaraja, Order Statistics, 7.1); Wilson, JASA 1927;
delete-a-group jackknife (Kott, Journal of Official Statistics 2001).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

GROUPS = 20
FEWEST_GROUPS = 10
"""Of a jackknife: below it Student's interval widens fast."""
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A number and what its n samples say about it; unpacks as ``value, low, high``.

    ``level`` is the coverage that the interval really has, which may differ from the one asked for
    (order statistics are discrete, and five samples can't give 95 %).
    """

    value: float
    low: float
    high: float
    n: int
    level: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.value, self.low, self.high))


def _finite(samples: ArrayLike, what: str) -> NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{what} must be a non-empty list of numbers, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} must be finite, got {int((~np.isfinite(values)).sum())} that are not")
    return values


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")


def median_coverage(n: int, rank: int) -> float:
    """Probability that the median lies between the rank-th smallest and rank-th largest of n samples."""
    tail = sum(math.comb(n, k) for k in range(rank))
    return float(1 - 2 * tail / 2**n)  # Python integers: exact up to the division


def median_interval(samples: ArrayLike, level: float = LEVEL) -> Interval:
    """The median with the narrowest symmetric pair of order statistics that covers it at ``level``.

    With fewer than 6 samples (at 95 %) no pair does: the interval is then the range, and ``level`` says how
    little that is (5 samples: 93.75 %, 2 samples: 50 %, 1 sample: 0).
    """
    _check_level(level)
    ordered = np.sort(_finite(samples, "samples"))
    n = ordered.size
    rank = 1
    while 2 * (rank + 1) <= n and median_coverage(n, rank + 1) >= level:
        rank += 1
    return Interval(
        value=float(np.median(ordered)),
        low=float(ordered[rank - 1]),
        high=float(ordered[n - rank]),
        n=n,
        level=median_coverage(n, rank),
    )


def wilson_interval(successes: int, n: int, level: float = LEVEL) -> Interval:
    """A share of n trials with Wilson's score interval."""
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..n with n >= 1, got {successes} of {n}")
    z = float(ndtri((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not push the interval off the share itself at 0 and at n.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), n, level)


def left_over(strata: ArrayLike, groups: int) -> int:
    """Samples left when of each stratum [n] every group has got as many as there are for all groups."""
    counts = np.unique(np.asarray(strata), return_counts=True)[1]
    return int((counts % groups).sum())


def group_count(strata: ArrayLike) -> int:
    """Groups of a jackknife: of 10 to 20 the number that leaves fewest samples over, the largest of equals.

    A group with one image more or less of a class than the others shifts the classes of the set without it,
    which the whole set is free of: intervals of distances are then up to several times too wide. Strata of
    fewer than ten can't be dealt in equal share; they have 20 groups and such intervals. The number follows
    from the sizes of the strata alone, so cells of equal labels leave out the same images.

    strata: int [n].
    """
    numbers = range(FEWEST_GROUPS, GROUPS + 1)
    return max(numbers, key=lambda groups: (-left_over(strata, groups), groups))


def balanced_groups(strata: ArrayLike, groups: int | None = None) -> NDArray[np.int64]:
    """Deal n samples into groups so that sizes differ by at most one, within every stratum and overall.

    Samples are ordered by stratum (class label) and dealt round-robin. Taking ``index % groups`` instead
    would put a single class in each group whenever labels run ``index % classes``. Shares are equal where the
    strata's sizes are multiples of the number of groups.

    strata: int [n]; groups: None for those of ``group_count``. Returns int64 [n], values in
    0..min(groups, n)-1.
    """
    labels = np.asarray(strata)
    if labels.ndim != 1 or labels.size < 2:
        raise ValueError(f"strata must be a list of at least 2 labels, got shape {labels.shape}")
    groups = group_count(labels) if groups is None else groups
    if groups < 2:
        raise ValueError(f"a jackknife needs at least 2 groups, got {groups}")
    dealt = np.empty(labels.size, dtype=np.int64)
    dealt[np.argsort(labels, kind="stable")] = np.arange(labels.size) % min(groups, labels.size)
    return dealt


def jackknife_sd(replicates: ArrayLike) -> float:
    """Standard deviation of a statistic from its G values with one group deleted each."""
    values = _finite(replicates, "replicates")
    groups = values.size
    if groups < 2:
        raise ValueError("a jackknife needs at least 2 replicates")
    return math.sqrt((groups - 1) / groups * float(((values - values.mean()) ** 2).sum()))


def jackknife_interval(value: float, replicates: ArrayLike, n: int, level: float = LEVEL) -> Interval:
    """Interval centred on the statistic: value -+ t * sd, t of Student with G - 1 degrees of freedom.

    value: the statistic over all n samples; replicates: float [G], over all but one group each.
    """
    _check_level(level)
    sd = jackknife_sd(replicates)
    half = float(stdtrit(np.size(replicates) - 1, (1 + level) / 2)) * sd
    return Interval(value, value - half, value + half, n, level)


def leave_one_out(sums: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Total over all groups but one. sums: float [G, ...] -> float64 [G, ...]."""
    array = np.asarray(sums, dtype=np.float64)
    return array.sum(axis=0, keepdims=True) - array
