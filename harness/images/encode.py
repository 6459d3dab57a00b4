"""Crops of an image folder to codes, streamed: no more than one batch of pictures is in memory.

Resizing and cropping are those with which the published networks' codes were made: halving by box filters,
then bicubic, then a centre crop (ADM, Dhariwal & Nichol, arXiv 2105.05233, as LlamaGen, RAR, LPD and ARPG use
it); ten crops from a slightly larger picture as in LlamaGen (arXiv 2406.06525).
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from backbones.published_tokenizers import tokenizer_info, tokenizer_names
from backbones.tokenizers import Tokenizer, load_tokenizer
from backbones.tokenizers.published import load_published_tokenizer
from backbones.weights import ZOO
from harness.images.data import to_float
from harness.images.folders import class_folders
from harness.images.pictures import BrokenPicture, open_image
from harness.weights.finite import check_finite
from pardec.errors import UserError, unknown

CROPS = ("centre", "mirror", "ten")
TEN_CROP_FACTOR = 1.1
FSQ = "fsq"
"""Tokenizers of the controlled tier."""
PUBLISHED_SIZE = 256
MOST_RESIZED = 1 << 24
"""Pixels that a picture may have once its short side is that of a crop, unless it is no longer than ..."""
LONGEST = 16
"""... times as long as wide."""


@dataclass(frozen=True)
class Cropping:
    """Which squares of ``size`` x ``size`` pixels are cut from a picture.

    ``centre``: one. ``mirror``: it and its mirror image. ``ten``: centre and four corners and their mirror
    images, for each factor: the picture is cut to int(factor * size) first.
    """

    size: int
    crops: str = "mirror"
    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise unknown("crops", self.crops, CROPS)
        if self.crops != "ten" and self.factors:
            raise UserError(f"crop factors {self.factors}: only crops 'ten' have them")
        if self.crops == "ten" and not self.factors:
            object.__setattr__(self, "factors", (TEN_CROP_FACTOR,))
        if any(not 1 <= factor <= 4 for factor in self.factors):
            raise UserError(f"crop factors {self.factors}: expected numbers from 1 to 4")

    @property
    def variants(self) -> int:
        return {"centre": 1, "mirror": 2, "ten": 10 * len(self.factors)}[self.crops]

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """All crops of an RGB picture, uint8 [V, 3, S, S]."""
        if self.crops == "centre":
            return centre_square(image, self.size)[None]
        pictures = [centre_square(image, int(factor * self.size)) for factor in self.factors or (1.0,)]
        corners = [self._corners(picture) if self.crops == "ten" else picture[None] for picture in pictures]
        return np.concatenate([np.concatenate([cut, cut[..., ::-1]]) for cut in corners])

    def _corners(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Centre, then the four corners, [5, 3, S, S], of [3, T, T]."""
        last, size = picture.shape[1] - self.size, self.size
        middle = round(last / 2)
        corners = ((middle, middle), (0, 0), (0, last), (last, 0), (last, last))
        return np.stack([picture[:, top : top + size, left : left + size] for top, left in corners])


def centre_square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """The centred square of a picture whose short side was brought to ``side`` pixels, [3, side, side].

    ValueError for a picture so thin that it would fill the memory on the way.
    """
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    extent = (round(image.width * scale), round(image.height * scale))
    if extent[0] * extent[1] > max(MOST_RESIZED, LONGEST * side * side):
        raise ValueError(
            f"{image.width}x{image.height} pixels are too thin for a square of {side}: resized, they are "
            f"{extent[0]}x{extent[1]}"
        )
    pixels = np.asarray(image.resize(extent, Image.Resampling.BICUBIC))  # [H, W, 3]
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side].transpose(2, 0, 1)


@dataclass(frozen=True)
class Pictures:
    """The files of PATH/CLASS/image.jpg, class by class."""

    root: Path
    files: list[Path]
    classes: tuple[tuple[str, int], ...]

    @classmethod
    def open(cls, spec: str) -> "Pictures":
        """``imagefolder:PATH``; UserError for anything else, and for a class without images."""
        kind, _, path = spec.partition(":")
        if kind != "imagefolder" or not path:
            raise unknown("data set", spec, ("imagefolder:PATH",))
        folders = class_folders(Path(path))
        empty = [name for name, files in folders if not files]
        if empty:
            raise UserError(f"image folder '{path}' has no images in class '{empty[0]}'")
        files = [file for _, found in folders for file in found]
        return cls(Path(path), files, tuple((name, len(found)) for name, found in folders))


def open_tokenizer(
    name: str, checkpoint: Path | None, image_size: int | None, weights: str | None = None
) -> tuple[Tokenizer, Path]:
    """A frozen tokenizer by name, and the file of its weights.

    checkpoint: the authors' file; only ``fsq`` has one of its own, the zoo's. image_size: side of the crops
    in pixels, by default 256, which an ``fsq`` cannot change. weights: which of several in the authors' file.
    UserError for what can't be, CheckpointError for a file that can't be read, NotFinite for weights that are
    no numbers.
    """
    if name == FSQ:
        path = checkpoint or ZOO / "tokenizer.safetensors"
        if weights is not None:
            raise UserError(f"--weights '{weights}': '{path}' holds one state of weights; leave it out")
        tokenizer = load_tokenizer(path)
        check_finite(tokenizer, f"'{path}': tokenizer weight")
        if image_size is not None and (image_size, image_size) != tokenizer.image_size:
            raise UserError(f"--image-size {image_size}: '{path}' is for images of {tokenizer.image_size}")
        return tokenizer, path
    if name not in tokenizer_names():
        raise unknown("tokenizer", name, (FSQ, *tokenizer_names()))
    info, side = tokenizer_info(name), image_size or PUBLISHED_SIZE
    if checkpoint is None:
        raise UserError(
            f"tokenizer '{name}' needs --checkpoint FILE, the authors' {info.file} ({info.files})"
        )
    if side < info.stride or side % info.stride:
        raise UserError(f"--image-size {side}: tokenizer '{name}' needs a multiple of {info.stride}")
    grid = (side // info.stride, side // info.stride)
    tokenizer = load_published_tokenizer(name, grid, checkpoint, weights)
    check_finite(tokenizer, f"'{checkpoint}': tokenizer weight")
    return tokenizer, checkpoint


@torch.inference_mode()
def encode_chunk(
    files: list[Path], cropping: Cropping, tokenizer: Tokenizer, batch: int, pool: Executor
) -> Iterator[tuple[NDArray[np.int64], list[BrokenPicture]]]:
    """Codes [b, V, N] of picture after picture, ``batch`` crops through the tokenizer at a time, and the
    pictures among them that have none.

    pool: reads and crops the files.
    """
    device = next(tokenizer.parameters()).device
    pictures = max(1, batch // cropping.variants)
    for start in range(0, len(files), pictures):
        found = list(pool.map(lambda file: _crops(file, cropping), files[start : start + pictures]))
        broken = [one for one in found if isinstance(one, BrokenPicture)]
        whole = [one for one in found if not isinstance(one, BrokenPicture)]
        if not whole:
            yield np.empty((0, cropping.variants, prod(tokenizer.grid)), dtype=np.int64), broken
            continue
        crops = np.stack(whole)
        pixels = torch.from_numpy(crops).flatten(0, 1)  # [b * V, 3, S, S]
        codes = [tokenizer.encode(to_float(part.to(device))).flatten(1).cpu() for part in pixels.split(batch)]
        yield torch.cat(codes).unflatten(0, crops.shape[:2]).numpy(), broken


def _crops(file: Path, cropping: Cropping) -> NDArray[np.uint8] | BrokenPicture:
    try:
        image = open_image(file)
    except BrokenPicture as broken:
        return broken
    try:
        return cropping(image)
    except ValueError as error:
        return BrokenPicture(file, str(error), "cropped")
