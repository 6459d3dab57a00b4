"""An image folder into shards of codes: this process's part, and the manifest once all are there."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from backbones.tokenizers import Tokenizer
from harness.cell.cell import checked
from harness.commands.common import share_of
from harness.images.code_shards import CodesInfo
from harness.images.codes_writer import CodesWriter
from harness.images.encode import Cropping, Pictures, encode_chunk, open_tokenizer
from harness.images.folders import listing_hash
from harness.images.shards import Share
from harness.machine.distributed import local_device
from harness.machine.environment import usable_cores
from harness.machine.terminal import progress_bar
from harness.subject.prepare import check_device
from pardec.errors import UserError
from pardec.hashing import file_sha256, text_key


def encode(options: argparse.Namespace) -> int:
    for key, least in (("chunk", 1), ("batch", 1), ("threads", 0)):
        if getattr(options, key) < least:
            raise UserError(f"--{key} {getattr(options, key)}: expected at least {least}")
    checked("threads", options.threads, "--threads")
    share, device = share_of(options.shard), local_device(options.device)
    check_device(device, "float32")
    torch.set_num_threads(options.threads or usable_cores())
    tokenizer, weights = open_tokenizer(
        options.tokenizer, options.checkpoint, options.image_size, options.weights
    )
    tokenizer = tokenizer.to(device)
    cropping = Cropping(tokenizer.image_size[0], options.crops, _factors(options.crop_factors))
    pictures = Pictures.open(options.data)
    info = _info(options, tokenizer, weights, cropping, pictures)
    writer = CodesWriter.open(options.out, info, pictures.root, pictures.files, options.skip_broken)
    _encode(writer, pictures, cropping, tokenizer, share)
    finished, skipped = writer.finish(), writer.left_out()
    for one in skipped:
        print(f"left out: '{one.file}': {one.reason}")
    if finished:
        images = info.images - len(skipped)
        print(f"{writer.folder}: {images} images in {cropping.variants} crops, manifest written")
    else:
        left = sum(len(images) for images in writer.missing())
        print(f"{writer.folder}: {info.images - left} of {info.images} images")
    return 0


def _factors(text: str | None) -> tuple[float, ...]:
    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--crop-factors '{text}': expected numbers, e.g. 1.1,1.05") from None


def _info(
    options: argparse.Namespace,
    tokenizer: Tokenizer,
    weights: Path,
    cropping: Cropping,
    pictures: Pictures,
) -> CodesInfo:
    sha256 = file_sha256(weights)
    if options.weights is not None:  # other states in one file make other codes
        sha256 = text_key(f"{sha256} {options.weights}", len(sha256))
    return CodesInfo(
        tokenizer=options.tokenizer,
        tokenizer_sha256=sha256,
        codes=tokenizer.codes,
        grid=tokenizer.grid,
        image_size=tokenizer.image_size,
        crops=cropping.crops,
        factors=cropping.factors,
        variants=cropping.variants,
        classes=pictures.classes,
        listing_sha256=listing_hash(pictures.root, pictures.files),
        chunk=options.chunk,
        batch=options.batch,
        device=options.device.partition(":")[0],
    )


def _encode(
    writer: CodesWriter,
    pictures: Pictures,
    cropping: Cropping,
    tokenizer: Tokenizer,
    share: Share,
) -> None:
    """Make what is missing of this process's part, a shard on disk before the next begins."""
    missing = writer.missing(share)
    with progress_bar() as bar, ThreadPoolExecutor(torch.get_num_threads()) as pool:
        task = bar.add_task(writer.info.tokenizer, total=sum(len(images) for images in missing))
        for images in missing:
            parts, broken = [], []
            files = pictures.files[images.start : images.stop]
            for codes, without in encode_chunk(files, cropping, tokenizer, writer.info.batch, pool):
                if without and not writer.skip_broken:
                    raise UserError(f"{without[0]}; repair it, or leave such pictures out with --skip-broken")
                parts.append(codes)
                broken += [(images.start + files.index(one.file), one) for one in without]
                bar.advance(task, len(codes) + len(without))
            writer.write(images, np.concatenate(parts), broken)
