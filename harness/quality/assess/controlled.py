"""Quality of a cell's images against the training images, whose features are read once per result folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.cell.cell import Cell
from harness.images.data import Dataset, files_of, load_dataset
from harness.images.names import is_fashion, metric_name
from harness.quality import (
    Extractor,
    Features,
    ReferenceStats,
    extract,
    protocol,
    quality,
    replicates,
    unmeasured,
)
from harness.quality.assess.kept import kept, slow_parts, with_slow_parts
from harness.quality.assess.stored import stored_reference
from harness.quality.classifiers import FeatureNetwork, load_features, load_judge, predictions
from harness.quality.sets import array_sha256
from harness.weights import zoo
from pardec.errors import UserError
from pardec.hashing import text_key

COLOUR = "clamp(round(127.5 x + 127.5)) to bytes, x in [-1, 1]"
LABELS = "class i % C for image i"
TOO_FEW = "quality needs at least 2 images"
_KEPT = ("features", "logits", "images_sha256", "n", "kernel_mean", "radii")


@dataclass(frozen=True)
class Assessor:
    """Extractor, judge and reference of a cell's data."""

    cell: Cell
    extractor: Extractor
    judge: FeatureNetwork
    reference: ReferenceStats

    @classmethod
    def of(cls, cell: Cell, folder: Path) -> "Assessor":
        """folder: where the features of the reference are kept between cells."""
        network = load_features(zoo.shared_file("features", cell.zoo)).to(cell.device)
        judge = load_judge(zoo.shared_file("judge", cell.zoo)).to(cell.device)
        extractor = Extractor.of(metric_name(cell.data), network, network.sha256)
        return cls(cell, extractor, judge, _reference(cell, extractor, folder))

    def fields(self, pixels: Tensor, labels: Tensor) -> tuple[dict[str, Any], dict[str, str]]:
        """Quality, its replicates, reference and protocol of a row for uint8 images [n, 3, H, W]; reasons of
        nulls."""
        if len(pixels) < 2:
            return {}, {"quality": TOO_FEW}
        features = extract(pixels, self.extractor, device=self.cell.device)
        seen = predictions(self.judge, pixels)
        metrics = quality(features, self.reference, labels.numpy(), seen.numpy())
        row = {
            "quality": {name: metric.row() for name, metric in metrics.items()},
            "quality_replicates": replicates(metrics),
            "reference": self.reference.row(),
            "protocol": protocol(features, COLOUR, LABELS),
        }
        return row, unmeasured(metrics)


def check_data(cell: Cell, folder: Path) -> None:
    """UserError for data that the reference isn't of, before anything is decoded."""
    if files_of(cell.data) is not None:
        Assessor.of(cell, folder)


def _reference(cell: Cell, extractor: Extractor, folder: Path) -> ReferenceStats:
    """Statistics of the training images: the zoo's, or from the folder's cache or freshly written to it.

    UserError for an ``idx:DIR`` of other training images than those behind the zoo's.
    """
    named = f"{cell.data}-train"
    if is_fashion(cell.data):
        beside = zoo.shared_file("features", cell.zoo).parent
        shipped = stored_reference(beside, extractor, "fashion-train")
        if shipped is not None:
            _check_same_images(cell, shipped, folder)
            return shipped
    device = torch.device(cell.device).type
    content = [cell.data, cell.pins.get("data"), extractor.sha256, device]
    digest = text_key(json.dumps(content))

    def make() -> dict[str, NDArray[Any]]:
        images = load_dataset(cell.data, "train").images
        features = extract(images, extractor, device=cell.device)
        own = {
            "features": features.features,
            "logits": features.logits,
            "images_sha256": np.array(features.images_sha256),
            "n": np.array(features.n),
        }
        return own | slow_parts(features.features)

    stored = kept(folder / f"reference-{digest}.npz", _KEPT, make)
    of_whom = (extractor.name, extractor.sha256, str(stored["images_sha256"]))
    features = Features(stored["features"], stored["logits"], *of_whom)
    return with_slow_parts(ReferenceStats.of(features, named), stored)


def _check_same_images(cell: Cell, shipped: ReferenceStats, folder: Path) -> None:
    """UserError for a folder of data whose training images are not the reference's; they are read once per
    result folder."""
    if files_of(cell.data) is None:
        return

    def make() -> dict[str, NDArray[Any]]:
        return {"images_sha256": np.array(array_sha256(load_dataset(cell.data, "train").images.numpy()))}

    digest = text_key(json.dumps([cell.data, cell.pins.get("data")]))
    found = str(kept(folder / f"data-{digest}.npz", ("images_sha256",), make)["images_sha256"])
    if found != shipped.sha256:
        raise UserError(
            f"data '{cell.data}': its training images ({found[:12]}) are not those of the zoo's reference "
            f"{shipped.name} ({shipped.sha256[:12]}); expected the files of Fashion-MNIST, or other images "
            "as imagefolder:PATH"
        )


def balanced(dataset: Dataset, count: int) -> tuple[Tensor, Tensor]:
    """At most ``count`` images, classes in turn like those of generated ones, and their labels."""
    by_class = [torch.where(dataset.labels == label)[0].tolist() for label in range(len(dataset.classes))]
    deepest = max(len(rows) for rows in by_class)
    rows = [rows[depth] for depth in range(deepest) for rows in by_class if depth < len(rows)][:count]
    return dataset.images[rows], dataset.labels[rows]
