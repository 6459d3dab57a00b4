"""All quality metrics of one set of generated images against one reference, each with its interval."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.quality import diversity, frechet, kernel, neighbours
from harness.quality.errors import Unmeasurable
from harness.quality.sets import Features, ReferenceStats
from harness.statistics import (
    GROUPS,
    Interval,
    balanced_groups,
    jackknife_interval,
    leave_one_out,
    wilson_interval,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One number of a row: value, 95 % interval, n generated images, name of the reference (None: none used).

    value, low and high are None where the metric could not be measured, and ``reason`` says why. The interval
    covers the draw of the generated images, with labels, reference and network held fixed. Against
    fresh draws of synthetic sets (10 classes, N of 500 to 2,000) its width is 1.1 to 1.4 times the true one
    for the distances, 0.8 to 1.1 for the score, 0.9 to 1.2 for precision, 1.1 to 1.5 for recall.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reference: str | None
    reason: str | None = None
    replicates: tuple[float, ...] | None = None
    """[G]: the value with each group of images left out, which the interval of a paired difference needs."""

    def row(self) -> dict[str, float | int | str | None]:
        """The metric's entry in a result row."""
        entry = asdict(self)
        del entry["reason"], entry["replicates"]
        return entry


def unmeasured(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Reasons of the metrics without a value, under the keys of a row's ``unmeasured``."""
    return {f"quality.{name}": metric.reason for name, metric in metrics.items() if metric.reason is not None}


Estimate = tuple[Interval, Array]
"""A metric's interval, and its values with each group of images left out."""


def _jackknifed(
    value: float,
    replicates: Array,
    n: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Jackknife interval, cut to the range that the metric can take."""
    found = jackknife_interval(value, replicates, n)
    low, high = max(found.low, min(bounds[0], value)), min(found.high, max(bounds[1], value))
    return Interval(value, low, high, n, found.level), replicates


def _share(hits: NDArray[np.bool_], groups: NDArray[np.int64]) -> Estimate:
    """A share of images, each in or out by itself, with Wilson's interval."""
    found = np.bincount(groups, weights=hits).astype(np.float64)
    sizes = np.bincount(groups).astype(np.float64)
    without = leave_one_out(found) / leave_one_out(sizes)
    return wilson_interval(int(hits.sum()), len(hits)), without


def _measured(estimate: Callable[[], Estimate], n: int, reference: str | None) -> Metric:
    try:
        found, replicates = estimate()
    except Unmeasurable as error:
        return Metric(None, None, None, n, reference, reason=str(error))
    kept = tuple(map(float, replicates))
    return Metric(found.value, found.low, found.high, n, reference, replicates=kept)


def _frechet(fake: Features, reference: ReferenceStats, groups: NDArray[np.int64]) -> dict[str, Metric]:
    points, n = fake.features, fake.n
    spread: list[Array] = []

    def replicates() -> Array:
        if not spread:
            spread.append(frechet.jackknife(points, reference, groups))
        return spread[0]

    def estimate(distance: Callable[[NDArray[np.float32], ReferenceStats], float]) -> Estimate:
        return _jackknifed(distance(points, reference), replicates(), n, (0, np.inf))

    return {
        "fd": _measured(lambda: estimate(frechet.torch_fidelity_distance), n, reference.name),
        "fd_clean": _measured(lambda: estimate(frechet.clean_fid_distance), n, reference.name),
    }


def _kernel(fake: Features, reference: ReferenceStats, groups: NDArray[np.int64]) -> Estimate:
    value, replicates = kernel.value_and_jackknife(
        fake.features, reference.points, groups, reference.kernel_mean
    )
    return _jackknifed(value, replicates, fake.n)


def _precision_recall(
    fake: Features, reference: ReferenceStats, groups: NDArray[np.int64]
) -> dict[str, Metric]:
    try:
        found = neighbours.precision_recall(fake.features, reference.points, groups, reference.radii)
    except Unmeasurable as error:
        missing = Metric(None, None, None, fake.n, reference.name, reason=str(error))
        return {"precision": missing, "recall": missing}

    def recall() -> Estimate:
        return _jackknifed(found.recall, found.recall_without, fake.n, (0, 1))

    def precision() -> Estimate:
        # Given the reference, each generated image is in or out by itself: a plain share.
        return _share(found.inside, groups)

    return {
        "precision": _measured(precision, fake.n, reference.name),
        "recall": _measured(recall, fake.n, reference.name),
    }


def _diversity(fake: Features, groups: NDArray[np.int64], seed: int) -> Estimate:
    value, _ = diversity.score(fake.logits, seed=seed)
    bounds = (1, fake.logits.shape[1])
    return _jackknifed(value, diversity.jackknife(fake.logits, groups), fake.n, bounds)


def quality(
    fake: Features,
    reference: Features | ReferenceStats,
    labels: ArrayLike,
    judge_predictions: ArrayLike | None = None,
    seed: int = diversity.SPLIT_SEED,
) -> dict[str, Metric]:
    """Every metric of a generated set, named with extractor and number of images: ``fd_mnist@1000``.

    labels: int [n], the classes asked for; judge_predictions: int [n], what a classifier that is not the
    extractor sees (None: no accuracy); seed: of the shuffle into splits of the Inception-Score-like score,
    torch-fidelity's by default; keep it equal over the rows of a table.

    Raises ValueError where extractors or lengths differ. A metric that can't be measured (too few images, a
    reference without images) has no value but a reason.
    """
    stats = reference if isinstance(reference, ReferenceStats) else ReferenceStats.of(reference)
    asked = np.asarray(labels)
    _check(fake, stats, asked)
    groups = balanced_groups(asked, GROUPS)
    found = _frechet(fake, stats, groups)
    found["kid"] = _measured(lambda: _kernel(fake, stats, groups), fake.n, stats.name)
    found["is"] = _measured(lambda: _diversity(fake, groups, seed), fake.n, None)
    of_extractor = {"fd": "fd_{}", "fd_clean": "fd_{}_clean", "kid": "kid_{}", "is": "is_{}"}
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
