"""Quality of a published network's images by clean-fid's own protocol: ``fid_clean@N``.

The reference is a folder of images, or an npz of ``mu`` and ``sigma`` as clean-fid's ``make_custom_stats``
writes it. It and the network's file stand in the row as ``clean_reference`` and ``clean_protocol``, apart
from those of the ADM protocol: neither number is compared with the other's.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.cell.cell import DOWNLOAD, Cell
from harness.quality import Extractor, ReferenceStats, clean, extract_parts, protocol
from harness.quality.assess.controlled import COLOUR, LABELS, TOO_FEW
from harness.quality.assess.kept import kept
from harness.quality.score import clean_distance, replicates, unmeasured
from pardec.errors import UserError, visible
from pardec.file_forms import unopenable
from pardec.hashing import file_sha256, text_key

BATCH = 64


def with_clean_scoring(cell: Cell) -> Cell:
    """The cell with the files of clean-fid's protocol, looked up and checked.

    UserError for a file that is missing or something else. Fetches the network only where the cell says so.
    """
    if cell.clean_reference is not None:
        clean.check_clean_reference(Path(cell.clean_reference))
    weights: Path | None
    if cell.clean_inception is None:
        # Nothing is asked for: a file that happens to lie there changes no cell.
        found = cell.clean_reference is not None and clean.clean_weights_file().is_file()
        weights = clean.clean_weights_file() if found else None
    elif cell.clean_inception == DOWNLOAD:
        weights = clean.download_clean_inception()
    else:
        weights = Path(cell.clean_inception)
        reason = unopenable(weights)
        if reason is not None:
            raise UserError(
                f"clean_inception '{cell.clean_inception}': {reason}; expected a path or '{DOWNLOAD}'"
            )
    if weights is not None:
        _check_network(weights, file_sha256(weights))
    return dataclasses.replace(cell, clean_inception=None if weights is None else str(weights))


@lru_cache(maxsize=4)
def _check_network(path: Path, sha256: str) -> None:
    """UserError unless the file holds the network; once for every content."""
    clean.clean_extractor(path)


def asks_for_clean(cell: Cell) -> bool:
    """Whether a cell names anything of clean-fid's protocol."""
    return cell.clean_reference is not None or cell.clean_inception is not None


def why_not_clean(cell: Cell) -> str | None:
    """The reason for which a cell that asks for it gets no ``fid_clean``, or None."""
    if cell.clean_reference is None:
        return "no reference of clean-fid's: it takes --clean-reference PATH, images or mu and sigma"
    if cell.clean_inception is None:
        file = clean.clean_weights_file()
        return f"no Inception of clean-fid's: no file {file}, and --clean-inception names none"
    if cell.images < 2:
        return TOO_FEW
    return None


@dataclass(frozen=True)
class CleanAssessor:
    """clean-fid's network and the reference of a cell."""

    cell: Cell
    extractor: Extractor
    reference: ReferenceStats

    @classmethod
    def of(cls, cell: Cell, folder: Path) -> "CleanAssessor":
        """folder: where the statistics of a folder of images are kept between cells. The cell has both."""
        assert cell.clean_reference is not None
        assert cell.clean_inception is not None
        extractor = clean.clean_extractor(Path(cell.clean_inception))
        return cls(cell, extractor, _reference(cell, Path(cell.clean_reference), extractor, folder))

    def fields(
        self, parts: Iterable[NDArray[np.uint8]], labels: NDArray[np.int64]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Quality, its replicates, reference and protocol of a row; reasons of nulls.

        parts: uint8 [n_i, 3, H, W], one at a time; labels: [n], of all images.
        """
        features = extract_parts(parts, len(labels), self.extractor, BATCH, self.cell.device)
        metrics = clean_distance(features, self.reference, labels)
        row = {
            "quality": {name: metric.row() for name, metric in metrics.items()},
            "quality_replicates": replicates(metrics),
            "clean_reference": self.reference.row(),
            "clean_protocol": protocol(features, COLOUR, LABELS),
        }
        return row, unmeasured(metrics)


def _reference(cell: Cell, path: Path, extractor: Extractor, folder: Path) -> ReferenceStats:
    """Statistics from a file, or of a folder's images, which are read once per result folder."""
    sha256 = cell.pins["clean_reference"]
    if path.is_file():
        return clean.read_clean_statistics(path, sha256, extractor)
    device = cell.device.partition(":")[0]
    digest = text_key(f"{sha256} {extractor.sha256} {device}")

    def make() -> dict[str, NDArray[Any]]:
        stats = clean.folder_statistics(path, sha256, extractor, BATCH, cell.device)
        return {"mu": stats.mu, "sigma": stats.sigma, "n": np.array(stats.n)}

    found = kept(folder / f"clean-reference-{digest}.npz", ("mu", "sigma", "n"), make)
    n, mu, sigma = int(found["n"]), found["mu"], found["sigma"]
    return ReferenceStats(visible(path.name), sha256, n, mu, sigma, extractor.name, extractor.sha256)
