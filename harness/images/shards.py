"""Images and tokens of one run on disk, cut by image index, so that a run can be split, killed and resumed.

A shard is one npz of a range of images: ``tokens`` int32 [n, N] in raster order and, where the run has a
tokenizer, ``images`` uint8 [n, 3, H, W]. An image depends on its index alone, so the union of the shards is
the same however the run was cut, as long as every cut is a multiple of the batch.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from harness.cell.cell import Cell, unscored
from pardec.errors import UserError
from pardec.files import write_whole
from results.annotations import is_whole
from results.arrays import read_arrays

RUN = "run.json"
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
        """The folder of a cell's images, made if missing; UserError where it holds those of another run."""
        path = folder / RUN
        content = {"cell": json.loads(cell.to_json()), "identity": identity(cell)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                stored = _run_of(folder)["identity"]
                differing = sorted(
                    key
                    for key in stored.keys() | content["identity"].keys()
                    if stored.get(key) != content["identity"].get(key)
                )
                if differing:
                    raise UserError(f"'{folder}' holds images of another run: {', '.join(differing)} differ")
            else:
                write_whole(path, lambda file: file.write(json.dumps(content, indent=1).encode() + b"\n"))
        except OSError as error:
            raise UserError(f"'{folder}' can't be written: {error.strerror or error}") from None
        return cls(folder, cell.images)

    @classmethod
    def read(cls, folder: Path) -> "Shards":
        """A finished folder; UserError where there is none."""
        return cls(folder, _run_of(folder)["cell"]["images"])

    def files(self) -> list[tuple[range, Path]]:
        """Ranges on disk and their files, by first image."""
        found = []
        for path in self.folder.iterdir():
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

    def write(self, images: range, tokens: NDArray[Any], pixels: NDArray[np.uint8] | None) -> None:
        """Store a range whole or not at all. tokens: [n, N]; pixels: uint8 [n, 3, H, W]."""
        arrays: dict[str, NDArray[Any]] = {"tokens": tokens.astype(np.int32)}
        if pixels is not None:
            arrays["images"] = pixels
        path = self.folder / f"shard-{images.start:08d}-{images.stop:08d}.npz"
        write_whole(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def parts(self, name: str) -> Iterator[NDArray[Any]]:
        """The array ``tokens`` or ``images`` of all shards in order, each image once.

        Raises UserError where an image is missing.
        """
        done = 0
        for images, path in self.files():
            if images.start > done:
                break
            if images.stop <= done:
                continue
            array = read_arrays(path, (name,)).get(name)
            if array is None:
                raise UserError(f"'{path}' holds no {name}: the run had no tokenizer")
            _check_part(path, name, array, len(images))
            yield array[done - images.start : self.total - images.start]
            done = images.stop
        if done < self.total:
            raise UserError(f"'{self.folder}' holds no image {done} of {self.total}: generate again to go on")

    def tokens(self) -> NDArray[np.int32]:
        """Tokens of all images [total, N], raster order."""
        return np.concatenate(list(self.parts("tokens")))


def _run_of(folder: Path) -> dict[str, Any]:
    """What ``Shards.open`` wrote about a run; UserError where it is missing or something else."""
    path = folder / RUN
    try:
        content: dict[str, Any] = json.loads(path.read_text())
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
    for name in ("images", "once", "threads", "data"):
        del content[name]
    return content | {"device": cell.device.partition(":")[0]}


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


def export_png(shards: Shards, folder: Path) -> None:
    """Write one PNG per image, named by its index, so that sorted names are the order of generation."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    index = 0
    for part in shards.parts("images"):
        for pixels in part:
            Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{index:08d}.png")
            index += 1
