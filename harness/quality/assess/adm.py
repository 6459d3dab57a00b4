"""Quality of a published network's images by the ADM protocol, against a reference npz.

Figures are named as on the controlled tier, with the extractor ``inception``:

* ``fd_inception@N`` is FID and ``sfd_inception@N`` sFID; ``mu``, ``sigma``, ``mu_s`` and ``sigma_s`` come
  from the reference file where it has them, else from its images;
* ``precision@N``, ``recall@N`` and ``kid_inception@N`` are taken against the file's images (k = 3, distances
  in float64, where the ADM evaluator has float16);
* ``is_inception@N`` is torch-fidelity's Inception Score: bias-free logits as in the ADM protocol, but over 10
  shuffled splits, where the ADM evaluator takes chunks of 5,000 in file order; with classes in turn, as ours
  are, both see every class in every part;
* ``fd_inception_clean@N`` is clean-fid's arithmetic on the same features. The FID that clean-fid prints by
  default resizes by another filter and reads another file of weights: ``fid_clean@N``
  (``harness.quality.assess.clean``).
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.cell.cell import DOWNLOAD, Cell
from harness.quality import (
    Extractor,
    Features,
    Metric,
    ReferenceStats,
    check_adm,
    download_inception,
    extract,
    extract_parts,
    inception_extractor,
    inception_weights_file,
    protocol,
    quality,
    read_adm,
    replicates,
    spatial_distance,
    unmeasured,
)
from harness.quality.adm import AdmBatch, statistics_of
from harness.quality.assess.clean import CleanAssessor, asks_for_clean, why_not_clean, with_clean_scoring
from harness.quality.assess.controlled import COLOUR, LABELS, TOO_FEW
from harness.quality.assess.kept import kept, slow_parts, with_slow_parts
from harness.quality.spatial import WIDTH, split, with_spatial
from pardec.errors import UserError, visible
from pardec.file_forms import unopenable
from pardec.hashing import file_sha256, text_key
from results.arrays import array_headers

POOLED = 2048
"""Width of the features behind FID."""
BATCH = 64
_KEPT = ("features", "logits", "kernel_mean", "radii")


def with_scoring(cell: Cell) -> Cell:
    """The cell with the files that its images are judged by, looked up and checked.

    UserError for a file that is missing or something else. Fetches the weights only where the cell says so.
    """
    if not cell.is_published:
        raise UserError(
            f"network '{cell.network}' is judged by its own training images: reference and inception must be "
            "absent, clean_reference and clean_inception too"
        )
    if cell.reference is not None:
        check_adm(Path(cell.reference), POOLED, WIDTH)
    weights: Path | None
    if cell.inception is None:
        weights = inception_weights_file() if inception_weights_file().is_file() else None
    elif cell.inception == DOWNLOAD:
        weights = download_inception()
    else:
        weights = Path(cell.inception)
        reason = unopenable(weights)
        if reason is not None:
            raise UserError(f"inception '{cell.inception}': {reason}; expected a path or '{DOWNLOAD}'")
    if weights is not None:
        _check_inception(weights, file_sha256(weights))
    cell = dataclasses.replace(cell, inception=None if weights is None else str(weights))
    return with_clean_scoring(cell) if asks_for_clean(cell) else cell


@lru_cache(maxsize=4)
def _check_inception(path: Path, sha256: str) -> None:
    """UserError unless the file holds the network's weights; once for every content."""
    inception_extractor(path)


def why_unscored(cell: Cell) -> str | None:
    """The reason for which a cell's images get no quality, or None."""
    if cell.reference is None:
        return "no reference: it takes --reference FILE, an npz such as VIRTUAL_imagenet256_labeled.npz"
    if cell.inception is None:
        return f"no Inception weights: no file {inception_weights_file()}, and --inception names none"
    if cell.images < 2:
        return TOO_FEW
    return None


def assess(
    cell: Cell,
    folder: Path,
    parts: Callable[[], Iterable[NDArray[np.uint8]]],
    labels: NDArray[np.int64],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Quality of a row by the protocols that the cell asks for, and reasons of nulls.

    Of two protocols, the one that lacks a file leaves its FID without a value. folder: where what takes long
    of the references is kept between cells; parts: gives uint8 [n_i, 3, H, W], one at a time, for each
    protocol anew; labels: int [n], of all images.
    """
    reason = why_unscored(cell)
    if not asks_for_clean(cell):
        if reason is not None:
            return {}, {"quality": reason}
        return PublishedAssessor.of(cell, folder).fields(parts(), labels)
    if reason is None:
        row, why = PublishedAssessor.of(cell, folder).fields(parts(), labels)
    else:
        row, why = _without("fd_inception", len(labels), reason)
    reason = why_not_clean(cell)
    if reason is None:
        theirs, their_why = CleanAssessor.of(cell, folder).fields(parts(), labels)
    else:
        theirs, their_why = _without("fid_clean", len(labels), reason)
    both = {key: row[key] | theirs[key] for key in ("quality", "quality_replicates")}
    return row | theirs | both, why | their_why


def _without(stem: str, n: int, reason: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The quality by a protocol that lacks a file."""
    metric = Metric(None, None, None, n, None, reason)
    name = f"{stem}@{n}"
    return {"quality": {name: metric.row()}, "quality_replicates": {}}, unmeasured({name: metric})


@dataclass(frozen=True)
class PublishedAssessor:
    """Inception and the references of a cell: of pooled features, and of spatial ones where there are any."""

    cell: Cell
    extractor: Extractor
    reference: ReferenceStats
    spatial: ReferenceStats | None

    @classmethod
    def of(cls, cell: Cell, folder: Path) -> "PublishedAssessor":
        """folder: where what takes long of the reference is kept between cells. The cell has both files."""
        assert cell.reference is not None
        assert cell.inception is not None
        extractor = with_spatial(inception_extractor(Path(cell.inception)))
        return cls(cell, extractor, *_references(cell, Path(cell.reference), extractor, folder))

    def fields(
        self, parts: Iterable[NDArray[np.uint8]], labels: NDArray[np.int64]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Quality, its replicates, reference and protocol of a row; reasons of nulls.

        parts: uint8 [n_i, 3, H, W], one at a time; labels: [n], of all images.
        """
        both = extract_parts(parts, len(labels), self.extractor, BATCH, self.cell.device)
        pooled, spatial = split(both)
        metrics = quality(pooled, self.reference, labels) | spatial_distance(spatial, self.spatial, labels)
        row = {
            "quality": {name: metric.row() for name, metric in metrics.items()},
            "quality_replicates": replicates(metrics),
            "reference": self.reference.row(),
            "protocol": protocol(pooled, COLOUR, LABELS),
        }
        return row, unmeasured(metrics)


def _references(
    cell: Cell, path: Path, extractor: Extractor, folder: Path
) -> tuple[ReferenceStats, ReferenceStats | None]:
    """Statistics of an ADM npz; the features of its images are read once per result folder."""
    device = cell.device.partition(":")[0]
    digest = text_key(f"{file_sha256(path)} {extractor.sha256} {device}")
    if "arr_0" not in array_headers(path):
        return _statistics(read_adm(path), None, None, extractor, visible(path.stem))
    stored = kept(folder / f"reference-{digest}.npz", _KEPT, lambda: _of_images(cell, path, extractor))
    both = Features(stored["features"], stored["logits"], extractor.name, extractor.sha256)
    pooled, spatial = _statistics(read_adm(path, images=False), *split(both), extractor, visible(path.stem))
    return with_slow_parts(pooled, stored), spatial


def _of_images(cell: Cell, path: Path, extractor: Extractor) -> dict[str, NDArray[Any]]:
    """Features of the file's images, and what takes longest of them."""
    images = read_adm(path).images
    assert images is not None
    both = extract(images, extractor, BATCH, cell.device)
    own = {"features": both.features, "logits": both.logits}
    return own | slow_parts(split(both)[0].features)


def _statistics(
    found: AdmBatch, pooled: Features | None, spatial: Features | None, extractor: Extractor, name: str
) -> tuple[ReferenceStats, ReferenceStats | None]:
    of_pooled = statistics_of(found, found.mu, found.sigma, pooled, extractor, name)
    assert of_pooled is not None  # check_adm refuses a file with neither images nor statistics
    return of_pooled, statistics_of(found, found.mu_s, found.sigma_s, spatial, extractor, name)
