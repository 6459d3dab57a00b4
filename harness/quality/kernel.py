"""Kernel distance (KID): unbiased squared MMD with the kernel (x.y/D + 1)^3, summed in float64.

mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)

(Bińkowski et al., arXiv 1801.01401)

Its expectation is 0 for equal distributions at any N, so small negative values are normal. Over the whole
sets rather than over random subsets: same expectation, less noise, nothing drawn.
:func:`torch_fidelity_distance` is torch-fidelity's mean over subsets, whose +- over overlapping subsets is
no standard error.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from harness.quality.errors import Unmeasurable

Array = NDArray[np.float64]
Points = NDArray[np.float32]

_CELLS = 2**22  # kernel values held at a time: 32 MiB


def _blocks(rows: Points, columns: Points) -> list[slice]:
    step = max(1, _CELLS // len(columns))
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def _kernel(x: Array, y: Array) -> Array:
    values = x @ y.T
    values /= x.shape[1]
    values += 1
    squares = values * values
    squares *= values
    return squares  # [rows of x, rows of y]


def mean_of_pairs(points: Points) -> float:
    """Mean kernel over pairs of different points. points: float32 [n, D], n >= 2."""
    x = points.astype(np.float64)
    total = sum(float(_kernel(x[rows], x).sum()) for rows in _blocks(points, points))
    diagonal = float((((x * x).sum(axis=1) / x.shape[1] + 1) ** 3).sum())
    return (total - diagonal) / (len(x) * (len(x) - 1))


def distance(fake: Points, real: Points, real_mean: float | None = None) -> float:
    """Unbiased squared MMD. fake: float32 [n, D]; real: float32 [m, D], n, m >= 2.

    real_mean: ``mean_of_pairs(real)`` where it is known.
    """
    one_group = np.zeros(len(fake), dtype=np.int64)
    return float(_sums(fake, real, one_group).value(mean_of_pairs(real) if real_mean is None else real_mean))


def jackknife(fake: Points, real: Points, groups: NDArray[np.int64], real_mean: float) -> Array:
    """The distance with one group of generated images deleted at a time [G]."""
    return _sums(fake, real, groups).without_each(real_mean)


def value_and_jackknife(
    fake: Points, real: Points, groups: NDArray[np.int64], real_mean: float
) -> tuple[float, Array]:
    """:func:`distance` and :func:`jackknife` from one pass over the kernel."""
    sums = _sums(fake, real, groups)
    return sums.value(real_mean), sums.without_each(real_mean)


class _Sums:
    """Kernel sums by group of generated images.

    within: [G, G], over pairs of different generated images; across: [G], against the reference; counts: [G].
    """

    def __init__(self, within: Array, across: Array, counts: Array, real: int) -> None:
        self.within, self.across, self.counts, self.real = within, across, counts, real

    def value(self, real_mean: float) -> float:
        n = self.counts.sum()
        if n < 2:
            raise Unmeasurable("KID needs at least 2 generated images")
        return float(self.within.sum() / (n * (n - 1)) + real_mean - 2 * self.across.sum() / (n * self.real))

    def without_each(self, real_mean: float) -> Array:
        n = self.counts.sum() - self.counts  # [G]
        if (n < 2).any():
            raise Unmeasurable(f"a jackknife of KID needs more than {int(self.counts.sum())} images")
        # Pairs with the deleted group on either side go; those with it on both were subtracted twice.
        within = self.within.sum() - 2 * self.within.sum(axis=1) + np.diagonal(self.within)
        across = self.across.sum() - self.across
        return np.asarray(within / (n * (n - 1)) + real_mean - 2 * across / (n * self.real))


def _sums(fake: Points, real: Points, groups: NDArray[np.int64]) -> _Sums:
    x, y = fake.astype(np.float64), real.astype(np.float64)
    member = np.eye(int(groups.max()) + 1)[groups]  # [n, G]
    within = np.zeros((member.shape[1],) * 2)
    across = np.zeros(member.shape[1])
    for rows in _blocks(fake, fake):
        block = _kernel(x[rows], x)  # [rows, n]
        own = np.arange(block.shape[0])
        block[own, own + rows.start] = 0
        within += member[rows].T @ (block @ member)
    for rows in _blocks(fake, real):
        across += member[rows].T @ _kernel(x[rows], y).sum(axis=1)
    return _Sums(within, across, member.sum(axis=0), len(real))


def torch_fidelity_distance(
    fake: Points,
    real: Points,
    subset_size: int = 1000,
    subsets: int = 100,
    seed: int = 2020,
    degree: int = 3,
    factor: float | None = None,
    offset: float = 1.0,
) -> float:
    """torch-fidelity's KID: the mean over random subsets of one size, kernel sums in float32.

    The kernel is (factor x.y + offset)^degree, factor 1/D where there is none.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    metric = kid_features_to_metric(
        torch.from_numpy(fake),
        torch.from_numpy(real),
        kid_subset_size=subset_size,
        kid_subsets=subsets,
        kid_kernel_poly_degree=degree,
        kid_kernel_poly_gamma=factor,
        kid_kernel_poly_coef0=offset,
        rng_seed=seed,
        verbose=False,
    )
    return float(metric["kernel_inception_distance_mean"])
