"""All quality metrics of one set of generated images against one reference, each with its interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.quality import clean, diversity, frechet, kernel, neighbours
from harness.quality.errors import Unmeasurable
from harness.quality.intervals import (
    Interval,
    balanced_groups,
    jackknife_interval,
    leave_one_out,
    wilson_interval,
)
from harness.quality.sets import Features, ReferenceStats

Array = NDArray[np.float64]
Found = tuple[Interval, Array]
"""A metric's interval, and its values with one group of images deleted each [G]."""


@dataclass(frozen=True)
class Metric:
    """One number of a row: value, 95 % interval, n generated images, name of the reference (None: none used).

    value, low and high are None where the metric could not be measured, and ``reason`` says why. The interval
    covers the draw of the generated images, with labels, reference and network held fixed. Against
    fresh draws of synthetic sets (10 classes, N of 500 to 2,000) its width is 1.1 to 1.4 times the true one
    for the distances (1.0 to 1.2 for the one at infinity at N = 1,000), 0.8 to 1.1 for the score, 0.9 to 1.2
    for precision, 1.1 to 1.5 for recall.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reference: str | None
    reason: str | None = None
    without: Array | None = field(default=None, compare=False)
    """float64 [G]: the metric with one group of images deleted at a time, for paired differences."""

    def row(self) -> dict[str, float | int | str | None]:
        """The metric's entry in a result row."""
        return {name: getattr(self, name) for name in ("value", "low", "high", "n", "reference")}


def unmeasured(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Reasons of the metrics without a value, under the keys of a row's ``unmeasured``."""
    return {f"quality.{name}": metric.reason for name, metric in metrics.items() if metric.reason is not None}


def replicates(metrics: Mapping[str, Metric]) -> dict[str, list[float]]:
    """The row's ``quality_replicates``, which paired differences between cells need.

    The groups are ``balanced_groups`` of the labels: cells of equal labels and N leave out the same images.
    """
    return {name: metric.without.tolist() for name, metric in metrics.items() if metric.without is not None}


def _interval(value: float, without: Array, n: int, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Found:
    """Jackknife interval, cut to the range that the metric can take."""
    found = jackknife_interval(value, without, n)
    low, high = max(found.low, min(bounds[0], value)), min(found.high, max(bounds[1], value))
    return Interval(value, low, high, n, found.level), without


def _share(hits: NDArray[np.bool_], groups: NDArray[np.int64]) -> Found:
    """Share of images, each in or out by itself."""
    member = np.eye(int(groups.max()) + 1)[groups]  # [n, G]
    without = leave_one_out(member.T @ hits) / leave_one_out(member.sum(axis=0))
    return wilson_interval(int(hits.sum()), len(hits)), without


def _measured(find: Callable[[], Found], n: int, reference: str | None) -> Metric:
    try:
        found, without = find()
    except Unmeasurable as error:
        return Metric(None, None, None, n, reference, reason=str(error))
    return Metric(found.value, found.low, found.high, n, reference, without=without)


def _frechet(
    fake: Features, reference: ReferenceStats, labels: NDArray[np.generic], groups: NDArray[np.int64]
) -> dict[str, Metric]:
    points, n = fake.features, fake.n
    spread: list[Array] = []

    def without() -> Array:
        if not spread:
            spread.append(frechet.jackknife(points, reference, groups))
        return spread[0]

    def found(distance: Callable[[NDArray[np.float32], ReferenceStats], float]) -> Found:
        return _interval(distance(points, reference), without(), n, (0, np.inf))

    def at_infinity() -> Found:
        value = frechet.distance_at_infinity(points, reference, labels)
        # Of the distance at N: a group deleted from the parts would leave their classes unequal, which the
        # line turns into a spread several times the true one.
        return _interval(value, value + without() - without().mean(), n)

    return {
        "fd": _measured(lambda: found(frechet.torch_fidelity_distance), n, reference.name),
        "fd_clean": _measured(lambda: found(frechet.clean_fid_distance), n, reference.name),
        "fd_inf": _measured(at_infinity, n, reference.name),
    }


def spatial_distance(
    fake: Features, reference: ReferenceStats | None, labels: ArrayLike
) -> dict[str, Metric]:
    """sFID, the Fréchet distance of spatial features (``quality.spatial``), as ``sfd_inception@N``.

    By our own arithmetic: neither library has it, and the ADM evaluator's formula is the same.

    fake: of the spatial features [n, 2023]; reference: None where its file has neither their statistics nor
    images; labels: int [n], the classes asked for.
    """
    name = f"sfd_{fake.extractor}@{fake.n}"
    if reference is None:
        reason = "the reference has neither mu_s and sigma_s nor images"
        return {name: Metric(None, None, None, fake.n, None, reason)}
    return {name: _lone_distance(fake, reference, labels, frechet.distance_of_images)}


def clean_distance(fake: Features, reference: ReferenceStats, labels: ArrayLike) -> dict[str, Metric]:
    """FID by clean-fid's own protocol (``quality.clean``), as ``fid_clean@N``.

    fake: of its network [n, 2048]; labels: int [n], the classes asked for.
    """
    return {f"fid_clean@{fake.n}": _lone_distance(fake, reference, labels, clean.clean_fid)}


def _lone_distance(
    fake: Features,
    reference: ReferenceStats,
    labels: ArrayLike,
    distance: Callable[[NDArray[np.float32], ReferenceStats], float],
) -> Metric:
    """One Fréchet distance with its jackknife interval."""
    asked = np.asarray(labels)
    _check(fake, reference, asked)
    groups = balanced_groups(asked)

    def found() -> Found:
        value = distance(fake.features, reference)
        return _interval(value, frechet.jackknife(fake.features, reference, groups), fake.n, (0, np.inf))

    return _measured(found, fake.n, reference.name)


def _kernel(fake: Features, reference: ReferenceStats, groups: NDArray[np.int64]) -> Found:
    value, without = kernel.value_and_jackknife(
        fake.features, reference.points, groups, reference.kernel_mean
    )
    return _interval(value, without, fake.n)


def _precision_recall(
    fake: Features, reference: ReferenceStats, groups: NDArray[np.int64]
) -> dict[str, Metric]:
    try:
        found = neighbours.precision_recall(fake.features, reference.points, groups, reference.radii)
    except Unmeasurable as error:
        missing = Metric(None, None, None, fake.n, reference.name, reason=str(error))
        return {"precision": missing, "recall": missing}

    def recall() -> Found:
        return _interval(found.recall, found.recall_without, fake.n, (0, 1))

    return {
        "precision": _measured(lambda: _share(found.inside, groups), fake.n, reference.name),
        "recall": _measured(recall, fake.n, reference.name),
    }


def _diversity(fake: Features, groups: NDArray[np.int64], seed: int) -> Found:
    diversity.require_images(fake.logits)
    value, _ = diversity.score(fake.logits, seed=seed)
    bounds = (1, fake.logits.shape[1])
    return _interval(value, diversity.jackknife(fake.logits, groups), fake.n, bounds)


def quality(
    fake: Features,
    reference: Features | ReferenceStats,
    labels: ArrayLike,
    judge_predictions: ArrayLike | None = None,
    seed: int = diversity.SPLIT_SEED,
) -> dict[str, Metric]:
    """Every metric of a generated set, named with extractor and number of images: ``fd_fashion@1000``.

    labels: int [n], the classes asked for; judge_predictions: int [n], what a classifier that is not the
    extractor sees (None: no accuracy); seed: of the shuffle into splits of the Inception-Score-like score,
    torch-fidelity's by default; keep it equal over the rows of a table.

    Raises ValueError where extractors or lengths differ. A metric that can't be measured (too few images, a
    reference without images) has no value but a reason.
    """
    stats = reference if isinstance(reference, ReferenceStats) else ReferenceStats.of(reference)
    asked = np.asarray(labels)
    _check(fake, stats, asked)
    groups = balanced_groups(asked)
    found = _frechet(fake, stats, asked, groups)
    found["kid"] = _measured(lambda: _kernel(fake, stats, groups), fake.n, stats.name)
    found["is"] = _measured(lambda: _diversity(fake, groups, seed), fake.n, None)
    of_extractor = {
        "fd": "fd_{}",
        "fd_clean": "fd_{}_clean",
        "fd_inf": "fd_{}_inf",
        "kid": "kid_{}",
        "is": "is_{}",
    }
    named = {f"{of_extractor[key].format(fake.extractor)}@{fake.n}": found[key] for key in of_extractor}
    for key, metric in _precision_recall(fake, stats, groups).items():
        named[f"{key}@{fake.n}"] = metric
    if judge_predictions is not None:
        seen = np.asarray(judge_predictions)
        if seen.shape != asked.shape:
            raise ValueError(f"judge_predictions have shape {seen.shape}, labels {asked.shape}")
        named[f"accuracy@{fake.n}"] = _measured(lambda: _share(seen == asked, groups), fake.n, None)
    return named


def _check(fake: Features, reference: ReferenceStats, labels: NDArray[np.generic]) -> None:
    if fake.n < 2:
        raise ValueError("quality needs at least 2 generated images")
    if labels.shape != (fake.n,):
        raise ValueError(f"labels must be [{fake.n}], got {labels.shape}")
    if fake.extractor_sha256 != reference.extractor_sha256 or fake.extractor != reference.extractor:
        raise ValueError(
            f"features by {fake.extractor} ({fake.extractor_sha256[:12]}) can't be compared with a reference "
            f"by {reference.extractor} ({reference.extractor_sha256[:12]})"
        )
    if fake.features.shape[1] != len(reference.mu):
        raise ValueError(
            f"features of width {fake.features.shape[1]}, reference of width {len(reference.mu)}"
        )
