"""Fréchet distance between Gaussians fitted to features, in three implementations and with its jackknife.

|mu_1 - mu_2|^2 + tr S_1 + tr S_2 - 2 tr (S_1 S_2)^(1/2)    (Heusel et al., arXiv 1706.08500)

* torch-fidelity: square roots of the eigenvalues of the unsymmetric product S_1 S_2;
* clean-fid: scipy's ``sqrtm`` of that product. It passes ``disp=False``, which SciPy 1.18 is to drop,
  so SciPy is pinned below it;
* ours: square roots of the eigenvalues of R S_1 R with R = S_2^(1/2), symmetric, hence real and several times
  faster, which pays for the evaluations of the jackknife.

The distance of N images is biased upwards by about c/N (Chong & Forsyth, arXiv 1911.07023), with a c that
depends on the model: compare at equal N only.
"""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from harness.quality.errors import Unmeasurable
from harness.quality.intervals import balanced_groups, leave_one_out, left_over
from harness.quality.sets import ReferenceStats

Array = NDArray[np.float64]
WIDEST = 512
"""Feature width up to which roots are cheap: at 2,048 one core takes 1.5 s by symmetry, scipy 27 s."""
ROUNDING = 1e-3
"""Of the traces: how far below zero the roots of singular covariances may take a distance."""
PARTS = (1, 2, 4, 5, 10)
"""Parts into which images are dealt for the sizes of an extrapolation: down to a tenth, as in its paper."""
FEWEST = 300
"""Images below which no distance at infinity is read off, however narrow the features are."""
PER_WIDTH = 10
"""Images of a part per effective width of the features: with a quarter of them the distance bends off its
line in 1/N by several times its interval, with half of them by about as much where distances are small."""
UNEQUAL = 0.05
"""Share of the images that may be left over when a class is dealt into parts."""


def _statistics(features: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
    from torch_fidelity.metric_fid import fid_features_to_statistics

    if len(features) < 2:
        raise Unmeasurable(f"a covariance needs at least 2 images, got {len(features)}")
    return fid_features_to_statistics(torch.from_numpy(features))


def torch_fidelity_distance(features: NDArray[np.float32], reference: ReferenceStats) -> float:
    """torch-fidelity's Fréchet distance. features: float32 [n, D]."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    fake = _statistics(features)
    # torch-fidelity asserts equal types: its mu keeps the features' float32, its sigma is float64.
    real = {"mu": reference.mu.astype(fake["mu"].dtype), "sigma": reference.sigma.astype(fake["sigma"].dtype)}
    found = float(fid_statistics_to_metric(fake, real, False)["frechet_inception_distance"])
    return _not_negative(found, np.trace(fake["sigma"]), reference)


def clean_fid_distance(features: NDArray[np.float32], reference: ReferenceStats) -> float:
    """clean-fid's Fréchet distance over the same features. features: float32 [n, D]."""
    n, width = features.shape
    if width > WIDEST and n <= width:
        raise Unmeasurable(f"clean-fid: no root of the singular covariance of {n} images, width {width}")
    fake = _statistics(features)
    return scipy_distance(fake["mu"], fake["sigma"], reference)


def scipy_distance(mu: NDArray[np.floating], sigma: NDArray[np.floating], reference: ReferenceStats) -> float:
    """clean-fid's ``frechet_distance`` of given statistics; Unmeasurable where scipy finds no real root.

    mu: [D]; sigma: [D, D], regular.
    """
    from cleanfid.fid import frechet_distance  # here, since it takes seconds to import

    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore", DeprecationWarning)
            distance = frechet_distance(mu, sigma, reference.mu, reference.sigma)
    except ValueError as error:
        raise Unmeasurable(f"clean-fid: complex root of the covariances ({error})") from error
    if not np.isfinite(distance):
        raise Unmeasurable(f"clean-fid: distance is {distance}")
    return _not_negative(float(np.real(distance)), np.trace(sigma), reference)


def _not_negative(distance: float, trace: float, reference: ReferenceStats) -> float:
    """A distance that rounding took below zero is zero; Unmeasurable for more than rounding.

    trace: of the images' covariance.
    """
    scale = trace + np.trace(reference.sigma)
    if not distance >= -ROUNDING * scale:
        raise Unmeasurable(f"the distance is {distance:g}, so the covariances are none")
    return max(0.0, distance)


def distance(mu: Array, sigma: Array, reference: ReferenceStats) -> float:
    """Fréchet distance of given statistics by symmetric eigenvalues. mu: [D]; sigma: [D, D]."""
    root = reference.sigma_root
    eigenvalues = np.linalg.eigvalsh(root @ sigma @ root)
    cross = np.sqrt(eigenvalues.clip(min=0)).sum()  # rounding leaves zeros at about -1e-17
    shift = mu - reference.mu
    found = float(shift @ shift + np.trace(sigma) + np.trace(reference.sigma) - 2 * cross)
    return _not_negative(found, np.trace(sigma), reference)


def moments(features: NDArray[np.float32]) -> tuple[Array, Array]:
    """Mean [D] and covariance [D, D] (divisor n - 1) in float64."""
    if len(features) < 2:
        raise Unmeasurable(f"a covariance needs at least 2 images, got {len(features)}")
    values = features.astype(np.float64)
    return values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False))


def moments_without_groups(
    features: NDArray[np.float32], groups: NDArray[np.int64]
) -> Iterator[tuple[Array, Array]]:
    """Mean and covariance with one group deleted at a time, from sums: one product per group, no refit."""
    centre = features.mean(axis=0, dtype=np.float64)
    values = features.astype(np.float64) - centre  # sums of squares about the mean lose no digits
    members = [values[groups == g] for g in range(int(groups.max()) + 1)]
    first = leave_one_out(np.stack([m.sum(axis=0) for m in members]))  # [G, D]
    second = values.T @ values  # [D, D]
    for total, deleted in zip(first, members, strict=True):
        left = len(values) - len(deleted)
        if left < 2:
            raise Unmeasurable(f"a jackknife of the Fréchet distance needs more than {len(values)} images")
        mean = total / left
        yield centre + mean, (second - deleted.T @ deleted - left * np.outer(mean, mean)) / (left - 1)


def jackknife(features: NDArray[np.float32], reference: ReferenceStats, groups: NDArray[np.int64]) -> Array:
    """The distance with one group of images deleted at a time [G]."""
    if len(features) <= features.shape[1]:
        kept = [groups != group for group in range(int(groups.max()) + 1)]
        return distances_of_few(features, reference, kept)
    return np.array(
        [distance(mu, sigma, reference) for mu, sigma in moments_without_groups(features, groups)]
    )


def distances_of_few(
    features: NDArray[np.float32], reference: ReferenceStats, kept: Iterable[NDArray[np.bool_]]
) -> Array:
    """The distance of each subset of at most as many images as features are wide, from n x n products.

    With X the centred features [n, D], the covariance X^T X / (n - 1) times S_2 has the eigenvalues of
    X S_2 X^T / (n - 1) and zeros, so no root of a D x D matrix is taken. kept: bool [n] each.
    """
    centre = features.mean(axis=0, dtype=np.float64)
    values = features.astype(np.float64) - centre
    products = values @ reference.sigma @ values.T  # [n, n]
    squares = (values * values).sum(axis=1)
    found = []
    for mask in kept:
        left = int(mask.sum())
        if left < 2:
            raise Unmeasurable(
                f"a Fréchet distance needs at least 2 images, {left} of {len(values)} are left"
            )
        shift = values[mask].mean(axis=0)
        inner = products[np.ix_(mask, mask)]
        inner = inner - inner.mean(axis=0) - inner.mean(axis=1)[:, None] + inner.mean()
        roots = np.sqrt(np.linalg.eigvalsh(inner / (left - 1)).clip(min=0)).sum()
        trace = (squares[mask].sum() - left * (shift @ shift)) / (left - 1)
        off = centre + shift - reference.mu
        distance = off @ off + trace + np.trace(reference.sigma) - 2 * roots
        found.append(_not_negative(float(distance), trace, reference))
    return np.array(found)


def distance_of_images(features: NDArray[np.float32], reference: ReferenceStats) -> float:
    """The distance of these images, by whichever product is smaller. features: float32 [n, D]."""
    if len(features) <= features.shape[1]:
        return float(distances_of_few(features, reference, [np.ones(len(features), dtype=np.bool_)])[0])
    return distance(*moments(features), reference)


def distance_at_infinity(
    features: NDArray[np.float32], reference: ReferenceStats, strata: ArrayLike
) -> float:
    """Distance extrapolated to infinitely many images (Chong & Forsyth, arXiv 1911.07023).

    The intercept of a straight line through the distance at several sizes against 1/N. The paper takes one
    random subset per size, of images drawn independently. Ours are dealt to classes in turn, and a random
    subset of those has unequal classes where a small set would not: that adds to its distance and, since the
    whole set is free of it, pulls the intercept below the truth. So the images are dealt into 10, 5, 4, 2 and
    1 parts, each with every class in equal share, and a size has the mean distance of its parts. Sizes at
    which classes have no equal share, or which are small for the features (``line_parts``), are left out.

    All images count alike at every size, so that, to first order, the intercept moves with an image as the
    distance of the whole set does: their spreads are the same, and so are their jackknife deviations.

    features: float32 [n, D]; strata: int [n], the classes. Unmeasurable where ``line_parts`` finds no line.
    """
    labels = np.asarray(strata)
    sizes = line_parts(labels, reference.effective_width)
    means = [_mean_of_parts(features, reference, labels, parts) for parts in sizes]
    return float(np.polyfit([parts / len(features) for parts in sizes], means, 1)[1])


def line_parts(labels: NDArray[np.generic], width: float) -> list[int]:
    """The numbers of parts whose mean distance lies on a line in 1/N.

    Each part holds ``PER_WIDTH`` times the features' effective ``width``, and every class in equal share.

    labels: [n], the classes. Unmeasurable for fewer than two numbers, or fewer than 300 images.
    """
    counts = np.unique(labels, return_counts=True)[1]
    n, least = len(labels), PER_WIDTH * width
    found = [
        parts
        for parts in PARTS
        if n >= parts * least and counts.min() >= parts and left_over(labels, parts) <= UNEQUAL * n
    ]
    if n < FEWEST or len(found) < 2:
        round_of_two = 2 * len(counts)
        needed = math.ceil(max(n + 1, FEWEST, 2 * least) / round_of_two) * round_of_two
        raise Unmeasurable(
            f"an extrapolation takes {needed} images, for {len(counts)} classes in turn and features of "
            f"effective width {width:.0f}, got {n}"
        )
    return found


def _mean_of_parts(
    features: NDArray[np.float32], reference: ReferenceStats, labels: NDArray[np.generic], parts: int
) -> float:
    """Mean distance of the images dealt into this many parts."""
    if parts == 1:
        return distance_of_images(features, reference)
    dealt = balanced_groups(labels, parts)
    return float(np.mean([distance_of_images(features[dealt == part], reference) for part in range(parts)]))
