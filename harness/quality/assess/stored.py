"""The reference of Fashion-MNIST as the zoo keeps it, so that measuring needs no training image.

As in ADM's protocol, mean and covariance are those of all 60,000 images; the points of kernel distance,
precision and recall are some of them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from harness.images.arrays import write_npz
from harness.images.data import Dataset
from harness.quality import Extractor, Features, ReferenceStats, extract, kernel, neighbours
from results.arrays import read_arrays

FILE = "reference.npz"
EVERY = 10
"""One of so many images is kept as a point."""
NAMES = (
    "mu",
    "sigma",
    "n",
    "images_sha256",
    "extractor_sha256",
    "features",
    "logits",
    "kernel_mean",
    "radii",
)


def store_reference(dataset: Dataset, extractor: Extractor, folder: Path) -> Path:
    """Write the statistics of a training split beside the feature network of a zoo folder."""
    features = extract(dataset.images, extractor)
    whole = ReferenceStats.of(features)
    points = features.features[::EVERY]
    path = folder / FILE
    write_npz(
        path,
        mu=whole.mu,
        sigma=whole.sigma,
        n=np.array(whole.n),
        images_sha256=np.array(features.images_sha256),
        extractor_sha256=np.array(extractor.sha256),
        features=points,
        logits=features.logits[::EVERY],
        kernel_mean=np.array(kernel.mean_of_pairs(points)),
        radii=neighbours.radii(points),
    )
    return path


def stored_reference(folder: Path, extractor: Extractor, name: str) -> ReferenceStats | None:
    """The reference kept in a zoo folder; None where there is none of this extractor."""
    path = folder / FILE
    if not path.is_file():
        return None
    stored: dict[str, Any] = read_arrays(path, NAMES)
    if len(stored) < len(NAMES) or str(stored["extractor_sha256"]) != extractor.sha256:
        return None
    points = Features(stored["features"], stored["logits"], extractor.name, extractor.sha256)
    stats = ReferenceStats(
        name=name,
        sha256=str(stored["images_sha256"]),
        n=int(stored["n"]),
        mu=stored["mu"],
        sigma=stored["sigma"],
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        features=points,
    )
    stats.__dict__.update(kernel_mean=float(stored["kernel_mean"]), radii=stored["radii"])
    return stats
