"""Fashion-MNIST (Xiao et al., arXiv 1708.07747): files in idx format, and the rule that makes them 32 x 32.

The 10,000 test images travel with the package (MIT licence beside them); the 60,000 others are downloaded by
torchvision or read from a folder that holds the four files, as Debian's dataset-fashion-mnist does.
"""

import gzip
import os
import zlib
from pathlib import Path

import numpy as np

from harness.images.names import FASHION_CLASSES as CLASSES
from pardec.errors import UserError, one_line
from results.arrays import UNREADABLE

SHIPPED = Path(__file__).parent / "fashion_mnist"
STEMS = {"train": "train", "held-out": "t10k"}
"""What the files of a split begin with."""
SIDE = 32
FRACTION_BITS = 12
"""Of the weights of the resizing rule: whole numbers, so that every machine gets the same bytes."""
AT_ONCE = 4000
"""Images resized together; more take more memory and no less time."""


def read_fashion(split: str, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, 32, 32], grey repeated without a copy, and labels int64 [n].

    folder: of the four files; None for the test images shipped and a download of the others. UserError for
    files that are missing or are something else.
    """
    if folder is None:
        folder = SHIPPED if split == "held-out" else _downloaded()
    stem = STEMS[split]
    images = read_idx(_file(folder, f"{stem}-images-idx3-ubyte"), 3)  # [n, 28, 28]
    labels = read_idx(_file(folder, f"{stem}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels) or not len(labels) or labels.max() >= len(CLASSES):
        raise UserError(f"'{folder}': {len(images)} images and {len(labels)} labels of {stem} don't match")
    grey = resized(images, SIDE)[:, None]  # [n, 1, 32, 32]
    return np.broadcast_to(grey, (len(grey), 3, SIDE, SIDE)), labels.astype(np.int64)


def idx_files(folder: Path) -> list[Path]:
    """Those of the four files that a folder has; who reads one that is missing says so."""
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    found = (_found(folder, f"{stem}-{kind}") for stem in STEMS.values() for kind in kinds)
    return [file for file in found if file is not None]


def _found(folder: Path, name: str) -> Path | None:
    """The file or its gz, where there is one."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _file(folder: Path, name: str) -> Path:
    """The file or its gz; UserError where the folder has neither."""
    found = _found(folder, name)
    if found is not None:
        return found
    raise UserError(f"'{folder}' has no file {name}.gz or {name}")


def _downloaded() -> Path:
    """The folder of torchvision's copy, fetched once."""
    from torchvision.datasets import FashionMNIST

    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pardec"
    try:
        FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"Fashion-MNIST can't be downloaded ({one_line(error)[:100]}); name a folder that has its files: "
            "idx:DIR"
        ) from None
    return root / "FashionMNIST" / "raw"


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an idx file, gzipped or not; UserError for anything else."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (*UNREADABLE, zlib.error) as error:
        raise UserError(f"'{path}' can't be read: {one_line(error)}") from None
    start = 4 + 4 * dimensions
    shape = np.frombuffer(raw[4:start], dtype=">u4").astype(np.int64) if len(raw) >= start else None
    if shape is None or raw[:4] != bytes((0, 0, 8, dimensions)) or len(raw) != start + shape.prod():
        raise UserError(f"'{path}' is not an idx file of bytes with {dimensions} dimensions")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Bytes [n, h, w] to [n, side, side]: bicubic (Keys, a = -1/2), antialiased, edges by weights that stay
    inside."""
    down, across = (resizing_weights(extent, side) for extent in images.shape[1:])
    parts = []
    for first in range(0, len(images), AT_ONCE):
        part = images[first : first + AT_ONCE].astype(np.float64)
        # Whole numbers below 2^53: exact in floating point, whatever the order of the sums.
        total = down @ part @ across.T
        rounded = np.floor(total / 4**FRACTION_BITS + 0.5)
        parts.append(np.clip(rounded, 0, 255).astype(np.uint8))
    return np.concatenate(parts)


def resizing_weights(extent: int, side: int) -> np.ndarray:
    """Whole numbers [side, extent], each row with the sum 2^FRACTION_BITS."""
    stretch = max(1.0, extent / side)  # wider when shrinking, against aliasing
    centres = (np.arange(side) + 0.5) * extent / side - 0.5
    distance = np.abs(np.arange(extent)[None, :] - centres[:, None]) / stretch
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    one = 1 << FRACTION_BITS
    whole = np.round(weights / weights.sum(axis=1, keepdims=True) * one)
    whole[np.arange(side), whole.argmax(axis=1)] += one - whole.sum(axis=1)
    return whole
