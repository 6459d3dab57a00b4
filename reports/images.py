"""Images inside a page: a cell's first samples side by side as one small file."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

SHOWN = 10
"""Samples of a cell on the page: one of each class where labels go round."""
_SIDE = 96
"""Larger images are made smaller: so many pixels along a side."""
_SMALL = 48
"""Up to this side images are kept pixel by pixel."""

_INKS = 128
"""Colours of a figure that are kept exactly; as many stand for all others."""


def sprite(samples: np.ndarray) -> str:
    """uint8 [n, H, W, 3] -> the first of them in a row, as a data URI."""
    images = [Image.fromarray(one) for one in samples[:SHOWN]]
    width, height = images[0].size
    scale = min(1.0, _SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    row = Image.new("RGB", (size[0] * len(images), size[1]))
    for at, image in enumerate(images):
        row.paste(image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS), (at * size[0], 0))
    if max(size) <= _SMALL:
        return _data_uri(row, "png", optimize=True)
    return _data_uri(row, "webp", quality=80)


@dataclass(frozen=True)
class Shown:
    """A figure on the page: data URIs of its light and its dark form, and its width there in CSS pixels."""

    light: str
    dark: str
    width: int

    @classmethod
    def of(cls, light: bytes, dark: bytes, dots_per_inch: float) -> "Shown":
        """From the PNG files of both forms."""
        (light_uri, pixels), (dark_uri, _) = _figure(light), _figure(dark)
        return cls(light_uri, dark_uri, round(96 * pixels / dots_per_inch))


def _figure(png: bytes) -> tuple[str, int]:
    """A figure as a data URI in 256 colours, as its few inks and small images need no more; and its width."""
    with Image.open(io.BytesIO(png)) as image:
        full = image.convert("RGB")
    red, green, blue = (np.asarray(channel, np.int32) for channel in full.split())
    packed = red << 16 | green << 8 | blue
    # A table of all colours takes less than sorting the pixels.
    count = np.bincount(packed.ravel(), minlength=1 << 24)
    found = np.flatnonzero(count)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.uint8)
    palette = _palette(colours, count[found])
    nearest = [_nearest(part, palette) for part in np.array_split(colours, 1 + len(colours) // 4096)]
    place = np.zeros(1 << 24, np.uint8)
    place[found] = np.concatenate(nearest)
    few = Image.fromarray(place[packed])
    few.putpalette(palette.ravel().tolist())
    return _data_uri(few, "png", optimize=True), few.width


def _palette(colours: np.ndarray, count: np.ndarray) -> np.ndarray:
    """uint8 [at most 256, 3] for ``colours`` [n, 3] of ``count`` [n] pixels: the commonest as they are, so
    that paper, lines and marks keep theirs, and some that cover the others."""
    if len(colours) <= 2 * _INKS:
        return colours
    common = np.argsort(-count, kind="stable")
    rest = Image.fromarray(colours[common[_INKS:]][None])
    # The median cut would spend its colours on greys and shift those of the strategies.
    cover = rest.quantize(_INKS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).getpalette() or []
    return np.concatenate([colours[common[:_INKS]], np.array(cover, np.uint8).reshape(-1, 3)[:_INKS]])


def _nearest(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """uint8 [n]: the place in ``palette`` [m, 3] of the colour nearest to each of ``colours`` [n, 3]."""
    far = colours[:, None].astype(np.int32) - palette[None].astype(np.int32)
    return (far * far).sum(axis=2).argmin(axis=1).astype(np.uint8)


def _data_uri(image: Image.Image, kind: str, **how: Any) -> str:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
