"""Codes of a whole image folder on disk: plain arrays in shards, and a manifest that vouches for them.

A shard is one .npy of a range of images, uint8, uint16 or int32 [n, V, N]: V crops of an image, each N codes
in raster order. Images are in class order, so labels follow from the manifest's classes, less the pictures
that it lists as left out. The manifest is written last, so a folder without one is unfinished.
"""

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pardec.errors import UserError
from pardec.files import read_text
from pardec.hashing import file_sha256
from results.annotations import fault
from results.arrays import UNREADABLE

MANIFEST = "manifest.json"
RUN = "encode.json"
FORMAT = 1


@dataclass(frozen=True)
class CodesInfo:
    """All that decides the content of the shards."""

    tokenizer: str
    tokenizer_sha256: str
    """Of the file of its weights."""
    codes: int
    """Size of the code book."""
    grid: tuple[int, int]
    image_size: tuple[int, int]
    """Height and width of a crop in pixels."""
    crops: str
    """``centre``, ``mirror`` or ``ten``."""
    factors: tuple[float, ...]
    """Short side before cropping, in units of the crop's side."""
    variants: int
    classes: tuple[tuple[str, int], ...]
    """Class names in the order of the labels, and images of each."""
    listing_sha256: str
    """Of names and sizes of the image files."""
    chunk: int
    """Images of a shard."""
    batch: int
    """Crops that the tokenizer encoded at a time."""
    device: str
    format: int = FORMAT

    @property
    def images(self) -> int:
        return sum(count for _, count in self.classes)

    @property
    def places(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type of those allowed that holds a code."""
        return np.dtype("<u1" if self.codes <= 1 << 8 else "<u2" if self.codes <= 1 << 16 else "<i4")

    def chunks(self) -> list[range]:
        starts = range(0, self.images, self.chunk)
        return [range(start, min(start + self.chunk, self.images)) for start in starts]

    def content(self) -> dict[str, Any]:
        """As JSON gives it back."""
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return content

    @classmethod
    def of(cls, content: dict[str, Any]) -> "CodesInfo":
        """What ``content`` gave; ValueError or TypeError for values that no codes have."""
        hints = get_type_hints(cls)
        values = {key: _tuples(value) for key, value in content.items() if key in hints}
        for key, value in values.items():
            if found := fault(value, hints[key]):
                raise ValueError(f"key '{key}{found}, not {value!r:.80}")
        info = cls(**values)
        sizes = (info.codes, *info.grid, *info.image_size, info.variants, info.chunk, info.batch, info.images)
        if min(sizes) < 1 or min((count for _, count in info.classes), default=0) < 0:
            raise ValueError("codes, grid, image_size, variants, classes, chunk and batch must be at least 1")
        return info


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def shard_name(images: range) -> str:
    """File of a range of the listed images."""
    return f"codes-{images.start:08d}-{images.stop:08d}.npy"


@dataclass(frozen=True)
class Skipped:
    """A listed picture that was left out because it couldn't be read."""

    image: int
    """Its place in the listing."""
    file: str
    """Its name below the folder's."""
    sha256: str
    reason: str

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Skipped":
        """What ``dataclasses.asdict`` and JSON made ``content`` of; ValueError or TypeError otherwise."""
        skipped = cls(**content)
        for key, hint in get_type_hints(cls).items():
            if found := fault(getattr(skipped, key), hint):
                raise ValueError(f"key '{key}{found}, not {getattr(skipped, key)!r:.80}")
        return skipped


@dataclass(frozen=True)
class CodeShards:
    """Finished codes as training reads them: mapped from disk, shared by the processes of a machine."""

    folder: Path
    info: CodesInfo
    arrays: tuple[NDArray[Any], ...]
    seed: int = 0
    """Of the order in which images are visited and of the crop at each visit."""
    skipped: tuple[Skipped, ...] = ()
    """Of the listed pictures; those are no images here."""

    @classmethod
    def open(cls, folder: Path, seed: int = 0, verify: bool = True) -> "CodeShards":
        """Map a finished folder. ``verify``: also compare every shard's hash, which reads them all.

        UserError for a missing or foreign manifest, and for a shard that is missing, torn or changed.
        """
        content = _read_manifest(folder)
        info, arrays = CodesInfo.of(content), []
        for shard in content["shards"]:
            path = folder / shard["file"]
            arrays.append(mapped(path, (shard["images"], info.variants, info.places), info.dtype))
            if verify and file_sha256(path) != shard["sha256"]:
                raise UserError(f"codes '{path}' changed since the manifest was written; {_MEND}")
        skipped = tuple(Skipped.of(one) for one in content.get("skipped", []))
        return cls(folder, info, tuple(arrays), seed, skipped)

    @property
    def images(self) -> int:
        return self.info.images - len(self.skipped)

    @cached_property
    def labels(self) -> Tensor:
        """int64 [n]."""
        counts = [count for _, count in self.info.classes]
        listed = np.repeat(np.arange(len(counts)), counts)
        return torch.from_numpy(np.delete(listed, [one.image for one in self.skipped]))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The first image of each shard."""
        return np.cumsum([0, *map(len, self.arrays)])[:-1]

    @cached_property
    def manifest_sha256(self) -> str:
        return file_sha256(self.folder / MANIFEST)

    def choose(self, size: int, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and variants [B] of a step: passes over shuffled images, a random crop at each visit.

        A function of the seed and of the global sample index step * B + row alone: the position in the data
        is the step, and the generator is not touched.
        """
        sample = np.arange(step * size, (step + 1) * size)
        epochs, positions = np.divmod(sample, self.images)
        images, variants = np.empty_like(sample), np.empty_like(sample)
        for epoch in np.unique(epochs):
            order, variant = _epoch_draws(self.seed, int(epoch), self.images, self.info.variants)
            rows = epochs == epoch
            images[rows], variants[rows] = order[positions[rows]], variant[positions[rows]]
        return torch.from_numpy(images), torch.from_numpy(variants)

    def tokens(self, images: Tensor, variants: Tensor) -> Tensor:
        """int64 [B, N] of images [B] in variants [B]."""
        shard = np.searchsorted(self._starts, images.numpy(), side="right") - 1
        row = images.numpy() - self._starts[shard]
        found = np.empty((len(images), self.info.places), dtype=np.int64)
        for number in np.unique(shard):
            here = shard == number
            found[here] = self.arrays[number][row[here], variants.numpy()[here]]
        return torch.from_numpy(found)


_MEND = "delete it and run pardec encode again"


@lru_cache(maxsize=4)
def _epoch_draws(
    seed: int, epoch: int, images: int, variants: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order of the images in an epoch, and the variant at each position, [n] each."""
    draws = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    order = np.argsort(draws.random(images), kind="stable")
    return order, (draws.random(images) * variants).astype(np.int64)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        state = "unfinished: encode again to go on" if (folder / RUN).is_file() else "make it: pardec encode"
        raise UserError(f"codes '{folder}' have no {MANIFEST} ({state})")
    try:
        content: dict[str, Any] = json.loads(read_text(path))
        if content["format"] != FORMAT:
            raise UserError(f"codes manifest '{path}' has format {content['format']}; expected {FORMAT}")
        info = CodesInfo.of(content)
        skipped = [Skipped.of(one).image for one in content.get("skipped", [])]
        named = [(shard["images"], shard["file"]) for shard in content["shards"] if shard["sha256"]]
        # The count first: a damaged number of images may make more chunks than memory holds.
        matches = len(named) == -(-info.images // info.chunk) and named == [
            (len(images) - sum(image in images for image in skipped), shard_name(images))
            for images in info.chunks()
        ]
        matches = matches and skipped == sorted(set(skipped)) and len(skipped) < info.images
        matches = matches and all(0 <= image < info.images for image in skipped)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise UserError(f"codes manifest '{path}' can't be read: {cause}") from None
    if not matches:
        raise UserError(f"codes manifest '{path}' lists other shards than its {info.images} images need")
    return content


def mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array of a file, left on disk; UserError unless it is whole and of this shape and type."""
    try:
        # Nothing can't be mapped.
        array: NDArray[Any] = np.load(path, mmap_mode="r" if shape[0] else None, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"codes '{path}' are missing; run pardec encode again") from None
    except UNREADABLE as error:
        raise UserError(f"codes '{path}' are torn: {error}; {_MEND}") from None
    if array.shape != shape or array.dtype != dtype:
        raise UserError(
            f"codes '{path}' hold {array.dtype} {list(array.shape)}; the manifest says {dtype} {list(shape)}"
        )
    return array
