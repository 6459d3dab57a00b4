"""Codes of a whole image folder on disk: plain arrays in shards, and a manifest that vouches for them.

A shard is one .npy of a range of images, uint8, uint16 or int32 [n, V, N]: V crops of an image, each N codes
in raster order. Images are in class order, so labels follow from the manifest's classes. The manifest is
written last, so a folder without one is unfinished.
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

from harness.images.shards import Share
from pardec.errors import UserError
from pardec.files import write_whole
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


def _name(images: range) -> str:
    return f"codes-{images.start:08d}-{images.stop:08d}.npy"


@dataclass(frozen=True)
class CodesWriter:
    """A folder of shards in the making."""

    folder: Path
    info: CodesInfo

    @classmethod
    def open(cls, folder: Path, info: CodesInfo) -> "CodesWriter":
        """The folder, made if missing; UserError where it holds other codes or can't be written."""
        path = folder / RUN
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                stored = _stored_run(path)
                differing = [key for key, value in info.content().items() if stored.get(key) != value]
                if differing:
                    raise UserError(f"'{folder}' holds codes of another run: {', '.join(differing)} differ")
            else:
                write_whole(path, lambda file: file.write(_json(info.content())))
        except OSError as error:
            raise UserError(f"'{folder}' can't be written: {error.strerror or error}") from None
        return cls(folder, info)

    def missing(self, share: Share | None = None) -> list[range]:
        """Chunks, of those that fall to ``share`` (None: of all), which are not on disk."""
        chunks = self.info.chunks()
        if share is not None:
            chunks = chunks[share.index :: share.count]
        return [images for images in chunks if not (self.folder / _name(images)).is_file()]

    def write(self, images: range, codes: NDArray[np.int64]) -> None:
        """Store a chunk's codes [n, V, N], whole or not at all."""
        array = np.ascontiguousarray(codes.astype(self.info.dtype))
        write_whole(self.folder / _name(images), lambda file: np.save(file, array, allow_pickle=False))

    def finish(self) -> bool:
        """Write the manifest if no chunk is missing; any process may, for all write the same."""
        if self.missing():
            return False
        shards = [
            {
                "file": _name(images),
                "images": len(images),
                "sha256": file_sha256(self.folder / _name(images)),
            }
            for images in self.info.chunks()
        ]
        content = {**self.info.content(), "shards": shards}
        write_whole(self.folder / MANIFEST, lambda file: file.write(_json(content)))
        return True


def _stored_run(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' can't be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"'{path}' can't be read: expected an object")
    return content


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class CodeShards:
    """Finished codes as training reads them: mapped from disk, shared by the processes of a machine."""

    folder: Path
    info: CodesInfo
    arrays: tuple[NDArray[Any], ...]
    seed: int = 0
    """Of the order in which images are visited and of the crop at each visit."""

    @classmethod
    def open(cls, folder: Path, seed: int = 0, verify: bool = True) -> "CodeShards":
        """Map a finished folder. ``verify``: also compare every shard's hash, which reads them all.

        UserError for a missing or foreign manifest, and for a shard that is missing, torn or changed.
        """
        content = _read_manifest(folder)
        info, arrays = CodesInfo.of(content), []
        for images, shard in zip(info.chunks(), content["shards"], strict=True):
            path = folder / shard["file"]
            arrays.append(_mapped(path, (len(images), info.variants, info.places), info.dtype))
            if verify and file_sha256(path) != shard["sha256"]:
                raise UserError(f"codes '{path}' changed since the manifest was written; {_MEND}")
        return cls(folder, info, tuple(arrays), seed)

    @property
    def images(self) -> int:
        return self.info.images

    @cached_property
    def labels(self) -> Tensor:
        """int64 [n]."""
        counts = torch.tensor([count for _, count in self.info.classes])
        return torch.arange(len(counts)).repeat_interleave(counts)

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
        shard, row = np.divmod(images.numpy(), self.info.chunk)
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
        content: dict[str, Any] = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise UserError(f"codes manifest '{path}' has format {content['format']}; expected {FORMAT}")
        info = CodesInfo.of(content)
        named = [(shard["images"], shard["file"]) for shard in content["shards"] if shard["sha256"]]
        # The count first: a damaged number of images may make more chunks than memory holds.
        matches = len(named) == -(-info.images // info.chunk) and named == [
            (len(images), _name(images)) for images in info.chunks()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise UserError(f"codes manifest '{path}' can't be read: {cause}") from None
    if not matches:
        raise UserError(f"codes manifest '{path}' lists other shards than its {info.images} images need")
    return content


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"codes '{path}' are missing; run pardec encode again") from None
    except UNREADABLE as error:
        raise UserError(f"codes '{path}' are torn: {error}; {_MEND}") from None
    if array.shape != shape or array.dtype != dtype:
        raise UserError(
            f"codes '{path}' hold {array.dtype} {list(array.shape)}; the manifest says {dtype} {list(shape)}"
        )
    return array
