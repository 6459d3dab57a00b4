"""Small folders of code shards whose codes the label half tells, for tests of training at scale."""

from pathlib import Path

import numpy as np

from harness.images.code_shards import CodesInfo
from harness.images.codes_writer import CodesWriter

INFO = CodesInfo(
    tokenizer="fsq",
    tokenizer_sha256="0" * 64,
    codes=8,
    grid=(4, 4),
    image_size=(16, 16),
    crops="mirror",
    factors=(),
    variants=2,
    classes=(("ant", 9), ("bee", 10), ("cat", 11)),
    listing_sha256="1" * 64,
    chunk=8,
    batch=4,
    device="cpu",
)


def codes_of(info: CodesInfo = INFO, seed: int = 0) -> np.ndarray:
    """int64 [n, V, N]: two of the codes of each image's class, at random."""
    labels = np.repeat(np.arange(len(info.classes)), [count for _, count in info.classes])
    noise = np.random.default_rng(seed).integers(0, 2, (info.images, info.variants, info.places))
    return 2 * labels[:, None, None] + noise


def write_codes(folder: Path, info: CodesInfo = INFO, seed: int = 0) -> Path:
    writer, codes = CodesWriter.open(folder, info), codes_of(info, seed)
    for images in writer.missing():
        writer.write(images, codes[images.start : images.stop])
    assert writer.finish()
    return folder
