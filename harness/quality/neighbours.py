"""Precision and recall by k-nearest-neighbour balls (Kynkäänniemi et al., arXiv 1904.06991), k = 3.

The ball of a point reaches its third nearest *other* point of its own set. Precision is the share of
generated images inside at least one ball of the reference, recall the share of reference images inside at
least one ball of the generated set; a point on the rim is inside. Squared distances in float64 (the ADM
evaluator takes float16, torch-fidelity float32 roots): a rim point stays a rim point.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.quality.errors import Unmeasurable

NEIGHBOURS = 3
_CELLS = 2**22  # distances held at a time: 32 MiB
_KEPT = 24  # neighbours remembered per generated image, so that deleting a group rarely needs a new search
_ROUNDING = 1e-12  # of the largest squared norm; float32 features are 1e5 times coarser

Array = NDArray[np.float64]
Points = NDArray[np.float32]


@dataclass(frozen=True)
class PrecisionRecall:
    """Which generated images lie in a reference ball, and recall.

    inside: bool [n]; recall: of the whole set; recall_without: [G], with each group deleted.
    """

    inside: NDArray[np.bool_]
    recall: float
    recall_without: Array

    @property
    def precision(self) -> float:
        return float(self.inside.mean())


def _distances(rows: Points, columns: Points) -> Iterator[tuple[slice, Array]]:
    """Squared distances in blocks of rows: (rows, [rows, columns])."""
    x, y = rows.astype(np.float64), columns.astype(np.float64)
    norms = (y * y).sum(axis=1)
    step = max(1, _CELLS // len(y))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        block = part @ y.T
        block *= -2
        block += (part * part).sum(axis=1)[:, None]
        block += norms
        yield slice(start, start + len(part)), block.clip(min=0, out=block)


def _check(points: Points, k: int, left: int) -> None:
    if left <= k:
        raise Unmeasurable(f"precision and recall with k = {k} need more than {len(points)} images")


def _others(points: Points) -> Iterator[tuple[slice, Array]]:
    for rows, block in _distances(points, points):
        own = np.arange(len(block))
        block[own, own + rows.start] = np.inf
        yield rows, block


def _slack(*sets: Points) -> float:
    return _ROUNDING * max(float((s.astype(np.float64) ** 2).sum(axis=1).max()) for s in sets)


def radii(points: Points, k: int = NEIGHBOURS) -> Array:
    """Squared distance of each point to its k-th nearest other point [n]. points: float32 [n, D]."""
    _check(points, k, len(points))
    found = np.empty(len(points))
    for rows, block in _others(points):
        block.partition(k - 1, axis=1)
        found[rows] = block[:, k - 1]
    return found


def radii_without(points: Points, groups: NDArray[np.int64], k: int = NEIGHBOURS) -> Array:
    """:func:`radii` with one group deleted at a time [G, n]; -inf for the deleted points themselves.

    groups: int [n]. The k-th neighbour outside a group is read from the nearest few of each point, and
    searched anew for the points whose nearest few lie mostly in that group.
    """
    count = int(groups.max()) + 1
    _check(points, k, len(points) - int(np.bincount(groups).max()))
    kept = min(_KEPT, len(points) - 1)
    found = np.full((count, len(points)), np.nan)
    for rows, block in _others(points):
        nearest = np.argpartition(block, kept - 1, axis=1)[:, :kept]
        near = np.take_along_axis(block, nearest, axis=1)
        order = near.argsort(axis=1)
        near, near_groups = np.take_along_axis(near, order, 1), groups[np.take_along_axis(nearest, order, 1)]
        for g in range(count):
            place = (near_groups != g).cumsum(axis=1) == k  # [rows, kept]
            radius = np.take_along_axis(near, place.argmax(axis=1)[:, None], axis=1)[:, 0]
            for row in np.flatnonzero(~place.any(axis=1)):
                radius[row] = np.partition(block[row, groups != g], k - 1)[k - 1]
            found[g, rows] = radius
    found[groups, np.arange(len(points))] = -np.inf
    return found


def precision_recall(
    fake: Points,
    real: Points,
    groups: NDArray[np.int64] | None = None,
    real_radii: Array | None = None,
    k: int = NEIGHBOURS,
) -> PrecisionRecall:
    """Both measures, and recall with one group of generated images deleted at a time.

    fake: float32 [n, D]; real: float32 [m, D]; groups: int [n]; real_radii: ``radii(real)`` if
    known.
    """
    slack = _slack(fake, real)
    real_reach = (radii(real, k) if real_radii is None else real_radii) + slack  # [m]
    whole = radii(fake, k)[None]  # [1, n]
    reach = (whole if groups is None else np.concatenate([whole, radii_without(fake, groups, k)])) + slack
    widest = reach.max(axis=0)  # [n]
    inside = np.zeros(len(fake), dtype=np.bool_)
    covered = np.zeros(len(reach), dtype=np.int64)
    for rows, block in _distances(real, fake):
        inside |= (block <= real_reach[rows, None]).any(axis=0)
        # Few pairs are near enough for any of the radii, so each set of radii looks at those alone.
        row, column = np.nonzero(block <= widest)
        near = block[row, column]
        for index, radius in enumerate(reach):
            covered[index] += np.unique(row[near <= radius[column]]).size
    recall = covered / len(real)
    return PrecisionRecall(inside, float(recall[0]), recall[1:])
