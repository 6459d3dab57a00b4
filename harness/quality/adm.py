"""The ADM evaluator's files, as references for us."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.quality.gaussians import check_gaussian
from harness.quality.neighbours import NEIGHBOURS
from harness.quality.sets import Extractor, Features, ReferenceStats
from pardec.errors import UserError
from pardec.hashing import file_sha256
from results.arrays import array_headers, read_arrays


@dataclass(frozen=True, eq=False)
class AdmBatch:
    """Content of an ADM npz: images, and the statistics of the whole training set if given.

    images: uint8 [n, 3, H, W]; mu: [2048]; sigma: [2048, 2048] of pool_3 features; mu_s: [2023];
    sigma_s: [2023, 2023] of spatial ones.
    """

    sha256: str
    images: NDArray[np.uint8] | None
    mu: NDArray[np.float64] | None
    sigma: NDArray[np.float64] | None
    mu_s: NDArray[np.float64] | None = None
    sigma_s: NDArray[np.float64] | None = None


_STATISTICS = {"mu": 1, "sigma": 2, "mu_s": 1, "sigma_s": 2}
"""Arrays of a reference and their number of dimensions, each as long as the features are wide."""
_PAIRS = (("mu", "sigma"), ("mu_s", "sigma_s"))


def check_adm(path: Path, width: int, spatial: int) -> None:
    """UserError where a file is no reference for features of these widths; its images aren't read."""
    arrays = array_headers(path)
    if "arr_0" in arrays:
        _check_images(path, arrays["arr_0"].dtype, arrays["arr_0"].shape)
        if arrays["arr_0"].shape[0] <= NEIGHBOURS:
            raise UserError(
                f"{path}: arr_0 must hold at least {NEIGHBOURS + 1} images for precision and recall"
            )
    elif not {"mu", "sigma"} <= arrays.keys():
        raise UserError(f"{path} holds neither images (arr_0) nor statistics (mu and sigma)")
    for name, dimensions in _STATISTICS.items():
        shape = (spatial if name.endswith("_s") else width,) * dimensions
        if name in arrays and not (arrays[name].shape == shape and arrays[name].dtype.kind == "f"):
            got = f"{arrays[name].dtype} {list(arrays[name].shape)}"
            raise UserError(f"{path}: {name} must be floats {list(shape)}, got {got}")
    _check_statistics(path, file_sha256(path))


@lru_cache(maxsize=4)
def _check_statistics(path: Path, sha256: str) -> None:
    """UserError for statistics without their other half or of no distribution; once for every content."""
    found = read_arrays(path, _STATISTICS)
    for mu, sigma in _PAIRS:
        if (mu in found) != (sigma in found):
            there, missing = (mu, sigma) if mu in found else (sigma, mu)
            raise UserError(f"{path} holds {there} without {missing}")
        if mu in found:
            numbers = (found[name].astype(np.float64) for name in (mu, sigma))
            check_gaussian(f"{path} ({mu}, {sigma})" if mu == "mu_s" else str(path), *numbers)


def _check_images(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape or dtype != np.uint8:
        raise UserError(f"{path}: arr_0 must be uint8 [n, H, W, 3], got {dtype} {shape}")


def read_adm(path: Path, images: bool = True) -> AdmBatch:
    """Read ``arr_0`` (uint8 [n, H, W, 3]) and the statistics, whichever are there.

    images: False for the statistics of a file whose images are known already.
    """
    names = [*_STATISTICS, *(["arr_0"] if images else [])]
    arrays = read_arrays(path, names)
    pixels = arrays.pop("arr_0", None)
    if any(array.dtype.kind not in "fiu" for array in arrays.values()):
        raise UserError(f"{path}: statistics must be numbers")
    found = {name: array.astype(np.float64) for name, array in arrays.items()}
    _check_statistics(path, file_sha256(path))
    if images and pixels is None and not {"mu", "sigma"} <= found.keys():
        raise UserError(f"{path} holds neither images (arr_0) nor statistics (mu and sigma)")
    if pixels is not None:
        _check_images(path, pixels.dtype, pixels.shape)
        pixels = pixels.transpose(0, 3, 1, 2)  # [n, 3, H, W]
    return AdmBatch(file_sha256(path), pixels, *(found.get(name) for name in _STATISTICS))


def statistics_of(
    found: AdmBatch,
    mu: NDArray[np.float64] | None,
    sigma: NDArray[np.float64] | None,
    features: Features | None,
    extractor: Extractor,
    name: str,
) -> ReferenceStats | None:
    """The file's own statistics where it has them, else those of features [n, D]; None where neither is."""
    n = None
    if mu is None or sigma is None:
        if features is None:
            return None
        own = ReferenceStats.of(features)
        mu, sigma, n = own.mu, own.sigma, own.n
    return ReferenceStats(
        name=name,
        sha256=found.sha256,
        n=n,
        mu=mu,
        sigma=sigma,
        extractor=extractor.name,
        extractor_sha256=extractor.sha256,
        features=features,
    )
