"""Images inside a page: a cell's first samples side by side as one small file."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SHOWN = 10
"""Samples of a cell on the page: one of each class where labels go round."""
_SIDE = 96
"""Larger images are made smaller: so many pixels along a side."""
_SMALL = 48
"""Up to this side images are kept pixel by pixel."""


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


def figure(png: Path) -> str:
    """A figure's file as a data URI, in 256 colours: its few inks and small images need no more."""
    with Image.open(png) as image:
        # The median cut would spend its colours on greys and shift those of the strategies.
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    return _data_uri(few, "png", optimize=True)


def _data_uri(image: Image.Image, kind: str, **how: Any) -> str:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
