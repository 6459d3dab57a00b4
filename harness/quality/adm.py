"""The ADM evaluator's files: samples for it, and its references for us."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.quality.sets import Extractor, ReferenceStats, extract, file_sha256
from strategies.decoding.errors import UserError


@dataclass(frozen=True, eq=False)
class AdmBatch:
    """Content of an ADM npz: images, and the statistics of the whole training set if given.

    images: uint8 [n, 3, H, W]; mu: [2048]; sigma: [2048, 2048] of pool_3 features.
    """

    sha256: str
    images: NDArray[np.uint8] | None
    mu: NDArray[np.float64] | None
    sigma: NDArray[np.float64] | None


def read_adm(path: Path) -> AdmBatch:
    """Read ``arr_0`` (uint8 [n, H, W, 3]), ``mu`` and ``sigma``, whichever are there."""
    try:
        with np.load(path, allow_pickle=False) as file:
            images = np.asarray(file["arr_0"]) if "arr_0" in file else None
            mu = file["mu"].astype(np.float64) if "mu" in file else None
            sigma = file["sigma"].astype(np.float64) if "sigma" in file else None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} can't be read as an npz of arrays: {' '.join(str(error).split())}"
        ) from error
    if images is None and (mu is None or sigma is None):
        raise UserError(f"{path} holds neither images (arr_0) nor statistics (mu and sigma)")
    if images is not None:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise UserError(f"{path}: arr_0 must be uint8 [n, H, W, 3], got {images.dtype} {images.shape}")
        images = images.transpose(0, 3, 1, 2)  # [n, 3, H, W]
    return AdmBatch(file_sha256(path), images, mu, sigma)


def write_adm(path: Path, images: NDArray[np.uint8]) -> None:
    """Write samples for the ADM evaluator. images: uint8 [n, 3, H, W], classes interleaved.

    Its score takes chunks of 5,000 images in file order, so a file sorted by class gets a far lower one.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be uint8 [n, 3, H, W], got {images.dtype} {images.shape}")
    np.savez(path, arr_0=images.transpose(0, 2, 3, 1))


def adm_reference(
    path: Path, extractor: Extractor, batch: int = 64, device: str = "cpu", name: str | None = None
) -> ReferenceStats:
    """A reference from an ADM npz: its ``mu`` and ``sigma`` where present, else those of its images.

    The published statistics are of the training set, the images a sample of 10,000 for precision and recall.
    """
    found = read_adm(path)
    features = None if found.images is None else extract(found.images, extractor, batch, device)
    if found.mu is None or found.sigma is None:
        assert features is not None  # read_adm refuses a file with neither
        own = ReferenceStats.of(features)
        mu, sigma, n = own.mu, own.sigma, own.n
    else:
        mu, sigma, n = found.mu, found.sigma, None
    return ReferenceStats(
        name=name or path.stem,
        sha256=found.sha256,
        n=n,
        mu=mu,
        sigma=sigma,
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        features=features,
    )
