"""Images with class labels: Fashion-MNIST, or a user's folder, class by folder.

The colour rule is the same for everything the harness measures: networks see floats in [-1, 1], and images
are rounded back to bytes by ``to_uint8``.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.images.folders import class_folders
from harness.images.idx_files import CLASSES, idx_files, read_fashion
from harness.images.names import SPECS, is_fashion, refuse_replaced
from harness.images.pictures import read_image
from pardec.errors import UserError, unknown

SPLITS = ("train", "held-out")
SPLIT_SEED = 0
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class Dataset:
    """One split of a labelled image set, in memory."""

    name: str
    split: str
    images: Tensor
    """uint8 [n, 3, H, W]."""
    labels: Tensor
    """int64 [n], values 0 .. classes - 1."""
    classes: tuple[str, ...]
    sha256: str
    """Of the image bytes followed by the label bytes (little-endian int64)."""

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> "Dataset":
        """Its first images, under the hash of the whole."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])


def to_float(images: Tensor) -> Tensor:
    """uint8 [..] to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to the nearest byte, values outside clamped: round(127.5 x + 127.5)."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def load_dataset(spec: str, split: str) -> Dataset:
    """The data set named by ``spec``: ``fashion``, ``idx:DIR`` or ``imagefolder:PATH[?size=S]``.

    Fashion-MNIST (``idx:DIR``: from its files in a folder) has its own split: 60,000 and 10,000. In a folder
    every class gives a fifth of its images, drawn with a fixed seed, to the split "held-out" and the others
    to "train".

    Raises:
        UserError: an unknown spec or split, or a folder that can't be used.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS, f"data set {spec}")
    kind, _, rest = spec.partition(":")
    if spec == "fashion" or (kind == "idx" and rest):
        return _dataset(spec, split, *read_fashion(split, Path(rest) if rest else None), CLASSES)
    if kind != "imagefolder":
        refuse_replaced(spec)
        raise unknown("data set", spec, SPECS)
    path, size = _parse_folder(rest, spec)
    images, labels, names = _read_folder(path, size)
    rows = _rows_of_split(labels, split)
    return _dataset(spec, split, images[rows], labels[rows], names)


def _dataset(
    name: str, split: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> Dataset:
    digest = hashlib.sha256(images.tobytes())
    digest.update(labels.astype("<i8").tobytes())
    if images.strides[1] == 0:  # grey: one channel in memory
        pixels = torch.from_numpy(np.array(images[:, :1])).expand(images.shape)
    else:
        pixels = torch.from_numpy(images)
    return Dataset(name, split, pixels, torch.from_numpy(labels), classes, digest.hexdigest())


def _rows_of_split(labels: np.ndarray, split: str) -> np.ndarray:
    """Row numbers of a stratified split, ascending."""
    generator = np.random.default_rng(SPLIT_SEED)
    chosen = []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        held_out = max(1, round(len(rows) * HELD_OUT_SHARE))
        chosen.append(rows[:held_out] if split == "held-out" else rows[held_out:])
    return np.sort(np.concatenate(chosen))


def files_of(spec: str) -> tuple[Path, list[Path]] | None:
    """The folder and files that a data set is read from, None for one that isn't the user's; UserError for
    no path, or an image folder without classes."""
    kind, _, rest = spec.partition(":")
    if kind == "imagefolder":
        folder = _parse_folder(rest, spec)[0]
        return folder, [file for _, files in class_folders(folder) for file in files]
    return (Path(rest), idx_files(Path(rest))) if kind == "idx" and rest else None


def _parse_folder(text: str, spec: str) -> tuple[Path, int | None]:
    path, _, option = text.partition("?")
    if not path:
        raise UserError(
            f"data set '{spec}' names no folder; expected imagefolder:PATH or imagefolder:PATH?size=32"
        )
    if not option:
        return Path(path), None
    key, _, value = option.partition("=")
    if key != "size":
        raise unknown("option", key, ("size",), f"data set '{spec}'")
    if not value.isdecimal() or int(value) == 0:
        raise UserError(f"size '{value}' in data set '{spec}' is not a positive whole number of pixels")
    return Path(path), int(value)


def _read_folder(path: Path, size: int | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images of PATH/CLASS/*.png (jpg, ...), classes in alphabetical order.

    With ``size``, each image's largest centred square is resized to size x size. Without, all images must
    have one common size.
    """
    images: list[np.ndarray] = []
    labels: list[int] = []
    classes = class_folders(path)
    for label, (name, files) in enumerate(classes):
        if len(files) < 2:
            raise UserError(
                f"class folder '{path / name}' has {len(files)} image{'' if len(files) == 1 else 's'}; "
                "each class needs at least 2, one to train on and one held out"
            )
        for file in files:
            image = read_image(file, size)
            if images and image.shape != images[0].shape:
                raise UserError(
                    f"image '{file}' is {_extent(image)} but the first of '{path}' is {_extent(images[0])}; "
                    "add ?size=32 to crop and resize all"
                )
            images.append(image)
            labels.append(label)
    return np.stack(images), np.array(labels, dtype=np.int64), tuple(name for name, _ in classes)


def _extent(image: np.ndarray) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"


@dataclass(frozen=True)
class Augmentation:
    """Random affine maps, uniform in each bound and independent per image."""

    degrees: float = 5.0
    """Largest rotation to either side."""
    shift: float = 1.0
    """Largest shift in pixels along each axis."""
    scale: float = 0.05
    """Largest relative change of size."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float images [B, C, H, W] resampled bilinearly, border pixels continued; shape kept."""
        count, _, height, width = images.shape
        draws = torch.rand(4, count, generator=generator, dtype=torch.float64) * 2 - 1
        angle = draws[0] * math.radians(self.degrees)
        size = 1 + draws[1] * self.scale
        across, down = draws[2] * self.shift * 2 / width, draws[3] * self.shift * 2 / height
        cosine, sine, aspect = angle.cos() / size, angle.sin() / size, height / width
        maps = torch.stack((cosine, -sine * aspect, across, sine / aspect, cosine, down), dim=1).view(
            count, 2, 3
        )  # [B, 2, 3]
        places = F.affine_grid(maps.to(images), list(images.shape), align_corners=False)
        return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=False)


def check_size(dataset: Dataset, size: tuple[int, int], of: str) -> None:
    """UserError for images that are not of ``size``, height and width in pixels; of: who takes no others."""
    found = (dataset.images.shape[2], dataset.images.shape[3])
    if found != size:
        raise UserError(
            f"data set '{dataset.name}': images of {found[1]}x{found[0]}, but {of} takes {size[1]}x{size[0]} "
            "pixels; imagefolder:PATH?size=S crops and resizes all"
        )


def augmentation_of(spec: str) -> Augmentation | None:
    """What training on a data set varies: folders are often small; 60,000 clothes need nothing, and all
    shoes point the same way."""
    return None if is_fashion(spec) else Augmentation()


def epochs(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers [batch] without end: shuffled passes over ``count`` rows, a short last batch left out."""
    if batch > count:
        raise UserError(f"batch {batch} is larger than the training split of {count} images")
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // batch * batch].split(batch)
