"""Picture files as pixels: turned upright, 16 bits scaled to 8, what is transparent laid on white.

Pillow's own conversion to RGB clips deep values, drops transparency and looks at no orientation. Where the
range of values isn't known a file is refused.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pardec.errors import UserError, one_line
from results.arrays import UNREADABLE

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are tried, whatever the file's name. Others run programs: Ghostscript for EPS."""
MOST_PIXELS = 1 << 26
"""Of an image, by its header: what claims more is taken for a decompression bomb."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS is stricter
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of odd metadata
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class BrokenPicture(UserError):
    """A ``file`` that gives no picture; ``reason`` says why without its name."""

    def __init__(self, file: Path, reason: str, done: str = "decoded") -> None:
        self.file, self.reason = file, reason
        super().__init__(f"image '{file}' can't be {done}: {reason}")


def open_image(file: Path) -> Image.Image:
    """A file as an RGB image; BrokenPicture where it can't be decoded."""
    with _opened(file) as opened:
        return _on_white(_eight_bits(opened))


def open_with_alpha(file: Path) -> Image.Image:
    """A file as an RGBA image; BrokenPicture where it can't be decoded."""
    with _opened(file) as opened:
        return _with_alpha(_eight_bits(opened))


def open_plainly(file: Path) -> Image.Image:
    """A file as an RGB image by Pillow's conversion alone, as other libraries read it."""
    with _decoding(file), Image.open(file, formats=FORMATS) as opened:
        return _of_bounded_size(opened).convert("RGB")


def read_image(file: Path, size: int | None) -> NDArray[np.uint8]:
    """One image as uint8 [3, H, W]; with ``size``, its largest centred square at that many pixels a side."""
    image = open_image(file)
    if size is not None:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """The first frame of a file; what goes wrong inside is a BrokenPicture."""
    # Not by its path: Pillow maps such a TIFF, and maps one that lies on its side with the wrong width.
    with _decoding(file), file.open("rb") as content, Image.open(content, formats=FORMATS) as opened:
        yield _of_bounded_size(opened)


@contextmanager
def _decoding(file: Path) -> Iterator[None]:
    try:
        yield
    except UnidentifiedImageError:
        what = f"none of {', '.join(FORMATS)}" if file.stat().st_size else "the file is empty"
        raise BrokenPicture(file, what) from None
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        raise BrokenPicture(file, reason) from error


def _of_bounded_size(opened: Image.Image) -> Image.Image:
    if opened.width * opened.height > MOST_PIXELS:
        raise ValueError(f"{opened.width}x{opened.height} pixels, at most {MOST_PIXELS:,} are read")
    return opened


def _eight_bits(opened: Image.Image) -> Image.Image:
    """The picture upright, in a mode of eight bits; ValueError for values whose range isn't known."""
    top = _top_value(opened)
    opened.load()
    turn = _UPRIGHT.get(_orientation(opened))
    image = _scaled(opened, top) if opened.mode.startswith(("I", "F")) else opened
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except UNREADABLE:  # metadata beyond reading states no orientation, and the pixels are whole
        return 1


def _top_value(opened: Image.Image) -> int | None:
    """The value of white in a deep grey image, None where the file doesn't say."""
    tags = getattr(opened, "tag_v2", None)
    if tags is not None:
        return None if opened.mode == "I" else (1 << tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    return (1 << 16) - 1  # PNG has 16 bits, and Pillow's reader of PPM scales to them


def _scaled(image: Image.Image, top: int | None) -> Image.Image:
    """Grey of 16 bits, or of floats in 0..1, as eight bits."""
    values = np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"floats from {low:g} to {high:g}; expected 0 to 1")
        top = 1
    if top is None:
        raise ValueError(
            "whole numbers of 32 bits, or with a sign, have no known range; expected 8 or 16 bits"
        )
    grey = Image.fromarray((values * (255 / top) + 0.5).astype(np.uint8))
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = Image.fromarray(255 - np.asarray(grey))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey


def _with_alpha(image: Image.Image) -> Image.Image:
    """Any eight-bit mode as RGBA."""
    if image.mode == "La":  # of which Pillow converts to LA alone
        image = image.convert("LA")
    if not image.has_transparency_data and image.mode != "RGBA":
        image = image.convert("RGB")
    return image.convert("RGBA")


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = _with_alpha(image)
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
