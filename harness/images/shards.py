"""Images and tokens of one run on disk, cut by image index, so that a run can be split, killed and resumed.

A shard is one npz of a range of images: ``tokens`` int32 [n, N] in raster order, what was counted of each
image and, where the run has a tokenizer, ``images`` uint8 [n, 3, H, W]. An image depends on its index alone,
so the union of the shards is the same however the run was cut, at multiples of the batch.
"""

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.cell.cell import Cell, unscored
from pardec.errors import UserError, one_line
from pardec.files import read_text, write_whole
from results.annotations import is_whole
from results.arrays import UNREADABLE, ArraysError, array_headers, read_arrays

RUN = "run.json"
_NOT_DECIDING = ("images", "once", "threads", "data", "lossiness_images")
_JUDGING = ("features", "judge", "data")
"""Roles of pinned files that only judge images."""
_NAME = re.compile(r"shard-(\d{8})-(\d{8})\.npz")


@dataclass(frozen=True)
class Share:
    """This process's part of a run: the chunks whose number is ``index`` modulo ``count``."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """``i/n`` with 0 <= i < n; UserError otherwise."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise UserError(f"--shard '{text}': expected i/n with i from 0 to n - 1, e.g. 0/8")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Shards:
    """The shards of ``total`` images in a folder."""

    folder: Path
    total: int

    @classmethod
    def open(cls, folder: Path, cell: Cell) -> "Shards":
        """The folder of a cell's images, made if missing; UserError where it holds those of another run.

        More images than there were extend the run; fewer are its first. Shards that aren't whole are removed.
        """
        _claim(folder, cell)
        shards = cls(folder, cell.images)
        for images, path in shards._named():
            if _fault(path, len(images)):
                path.unlink(missing_ok=True)
        return shards

    @classmethod
    def foreseen(cls, folder: Path, cell: Cell) -> "Shards":
        """As ``open`` would find it, for what a run would do; writes nothing."""
        if (folder / RUN).is_file():
            _images_of_same(folder, cell)
        return cls(folder, cell.images)

    @classmethod
    def read(cls, folder: Path) -> "Shards":
        """A finished folder; UserError where there is none."""
        return cls(folder, _run_of(folder)["cell"]["images"])

    def files(self) -> list[tuple[range, Path]]:
        """Ranges on disk and their files, by first image; those that aren't whole are left out."""
        return [(images, path) for images, path in self._named() if not _fault(path, len(images))]

    def _named(self) -> list[tuple[range, Path]]:
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            match = _NAME.fullmatch(path.name)
            if match is not None:
                found.append((range(int(match[1]), int(match[2])), path))
        return sorted(found, key=lambda item: (item[0].start, item[0].stop))

    def missing(self, length: int, share: Share = Share()) -> list[range]:
        """Chunks of ``length`` images, of those that fall to ``share``, which are not wholly on disk."""
        there = np.zeros(self.total, dtype=bool)
        for images, _ in self.files():
            there[images.start : images.stop] = True
        chunks = [range(start, min(start + length, self.total)) for start in range(0, self.total, length)]
        mine = chunks[share.index :: share.count]
        return [chunk for chunk in mine if not there[chunk.start : chunk.stop].all()]

    def write(
        self,
        images: range,
        tokens: NDArray[Any],
        pixels: NDArray[np.uint8] | None,
        counters: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Store a range whole or not at all.

        tokens: [n, N]; pixels: uint8 [n, 3, H, W]; counters: what was counted of each image, [n, ..].
        """
        arrays: dict[str, NDArray[Any]] = {"tokens": tokens.astype(np.int32), **(counters or {})}
        if pixels is not None:
            arrays["images"] = pixels
        path = self.folder / f"shard-{images.start:08d}-{images.stop:08d}.npz"
        write_whole(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def parts(self, name: str) -> Iterator[NDArray[Any]]:
        """The array ``tokens`` or ``images`` of all shards in order, each image once.

        Raises UserError where an image is missing.
        """
        for images, path, rows in self._pieces():
            array = read_arrays(path, (name,)).get(name)
            if array is None:
                raise UserError(f"'{path}' holds no {name}: the run had no tokenizer")
            _check_part(path, name, array, len(images))
            yield array[rows]

    def counters(self, required: Sequence[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """What was counted of the images of each shard, each image once, by name.

        Raises UserError where an image is missing, or a shard doesn't hold what is required.
        """
        for _, path, rows in self._pieces():
            found = read_arrays(path, array_headers(path).keys() - {"tokens", "images"})
            lacking = [name for name in required if name not in found]
            if lacking:
                raise UserError(
                    f"'{path}' holds no {lacking[0]} of its images: remove it to have them made anew"
                )
            yield {name: one[rows] for name, one in found.items()}

    def _pieces(self) -> Iterator[tuple[range, Path, slice]]:
        """Images, file and rows of the shards that together hold each of the ``total`` images once, in order.

        Raises UserError at the first image that none of them holds.
        """
        done = 0
        for images, path in self.files():
            if done >= self.total or images.start > done:
                break
            if images.stop > done:
                yield images, path, slice(done - images.start, self.total - images.start)
                done = images.stop
        if done < self.total:
            torn = [(path, _fault(path, len(images))) for images, path in self._named() if done in images]
            why = f" ({torn[0][0].name}: {torn[0][1]})" if torn else ""
            raise UserError(
                f"'{self.folder}' holds no image {done} of {self.total}{why}: generate again to go on"
            )

    def tokens(self) -> NDArray[np.int32]:
        """Tokens of all images [total, N], raster order."""
        return np.concatenate(list(self.parts("tokens")))


def _run_of(folder: Path) -> dict[str, Any]:
    """What ``Shards.open`` wrote about a run; UserError where it is missing or something else."""
    path = folder / RUN
    try:
        content: dict[str, Any] = json.loads(read_text(path))
        whole = isinstance(content["identity"], dict) and is_whole(content["cell"]["images"])
    except FileNotFoundError:
        raise UserError(f"'{folder}' holds no images of a run ({RUN} is missing)") from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"'{path}' can't be read: {type(error).__name__}: {error}") from None
    if not whole:
        raise UserError(f"'{path}' is no account of a run: expected cell.images and identity")
    return content


def _check_part(path: Path, name: str, array: NDArray[Any], images: int) -> None:
    """UserError for an array that is not that of ``images`` images."""
    rank, kinds = (2, "iu") if name == "tokens" else (4, "u")
    if array.ndim != rank or array.dtype.kind not in kinds or len(array) != images:
        raise UserError(
            f"'{path}' holds {name} {array.dtype} {list(array.shape)}, not those of {images} images"
        )


def identity(cell: Cell) -> dict[str, Any]:
    """What decides the content of an image: the cell less how and how often it is run."""
    content: dict[str, Any] = json.loads(json.dumps(unscored(cell).content()))
    return _deciding(content) | {"device": cell.device.partition(":")[0]}


def _deciding(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content without what was once written down though it decides no image."""
    found = {name: value for name, value in content.items() if name not in _NOT_DECIDING}
    pins = found.get("pins")
    if isinstance(pins, dict):
        found["pins"] = {role: digest for role, digest in pins.items() if role not in _JUDGING}
    return found


def _claim(folder: Path, cell: Cell) -> None:
    """Write whose images a folder holds, or find it written; UserError for another run's."""
    content = {"cell": json.loads(cell.to_json()), "identity": identity(cell)}
    path = folder / RUN
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or _images_of_same(folder, cell) < cell.images:
            write_whole(path, lambda file: file.write(json.dumps(content, indent=1).encode() + b"\n"))
    except OSError as error:
        raise UserError(f"'{folder}' can't be written: {error.strerror or error}") from None


def _images_of_same(folder: Path, cell: Cell) -> int:
    """How many images a folder says it has; UserError where they are of another run than the cell's."""
    run = _run_of(folder)
    stored, wanted = _deciding(run["identity"]), identity(cell)
    differing = sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key))
    if differing:
        raise UserError(f"'{folder}' holds images of another run: {', '.join(differing)} differ")
    return int(run["cell"]["images"])


def _fault(path: Path, images: int) -> str | None:
    """Why a file doesn't hold what its name says, or None; UserError where it can't be read."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
    except OSError as error:
        raise UserError(f"'{path}' can't be read: {error.strerror or error}") from None
    return _fault_now(path, images, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _fault_now(path: Path, images: int, *state: int) -> str | None:
    try:
        headers = array_headers(path)
        with zipfile.ZipFile(path) as archive:
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            damaged = archive.testzip() if stored else None
        if not stored:  # not as we write them: unpacked, if that is safe, to see whether they are whole
            read_arrays(path)
    except ArraysError as error:
        return error.reason
    except UNREADABLE as error:
        return one_line(error)
    lengths = {name: header.shape[:1] for name, header in headers.items()}
    if damaged is not None or lengths.get("tokens") != (images,) or set(lengths.values()) != {(images,)}:
        return damaged or f"not the arrays of {images} images"
    return None


def flipped(a: Shards, b: Shards) -> float:
    """Share of tokens in which two runs of the same images differ, over the images that both hold."""
    first, second = a.tokens(), b.tokens()
    if first.shape[1] != second.shape[1]:
        raise UserError(f"'{a.folder}' and '{b.folder}' hold grids of {first.shape[1]} and {second.shape[1]}")
    both = min(len(first), len(second))
    return float((first[:both] != second[:both]).mean())


def export_adm(shards: Shards, path: Path) -> None:
    """Write the layout that the ADM evaluator reads: ``arr_0`` uint8 [n, H, W, 3], shard by shard."""
    channels, height, width = next(shards.parts("images")).shape[1:]
    shape = (shards.total, height, width, channels)

    def write(file: Any) -> None:
        with (
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
            archive.open("arr_0.npy", "w", force_zip64=True) as member,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(member, header)
            for part in shards.parts("images"):
                member.write(np.ascontiguousarray(part.transpose(0, 2, 3, 1)).data)

    write_whole(path, write)
