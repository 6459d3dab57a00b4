"""pardec encode: a folder of images to shards of codes, resumable, split over processes."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.common import share_of
from harness.machine.distributed import local_device
from harness.machine.terminal import progress_bar
from pardec.errors import UserError

if TYPE_CHECKING:
    from backbones.tokenizers import Tokenizer
    from harness.images.code_shards import CodesInfo, CodesWriter
    from harness.images.encode import Cropping, Pictures
    from harness.images.shards import Share

SUMMARY = "encode an image folder into shards of codes to train on; goes on where it was cut"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", required=True, metavar="SPEC", help="imagefolder:PATH, one folder a class")
    command.add_argument(
        "--tokenizer", required=True, metavar="NAME", help="vq-llamagen, vq-maskgit, ... or fsq"
    )
    command.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="the authors' weights (fsq: the zoo's)"
    )
    command.add_argument("--image-size", type=int, metavar="S", help="side of the crops (default: 256)")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    command.add_argument(
        "--crops",
        default="mirror",
        help="centre (for validation), mirror (two), ten (centre, corners, mirrored) (default: %(default)s)",
    )
    command.add_argument(
        "--crop-factors", metavar="F,F", help="with ten: sides cut first, in crops (default: 1.1)"
    )
    command.add_argument("--chunk", type=int, default=8192, help="images a shard (default: %(default)s)")
    command.add_argument(
        "--batch", type=int, default=64, help="crops encoded at a time (default: %(default)s)"
    )
    command.add_argument("--shard", metavar="I/N", help="only every N-th shard, from the I-th (0 <= I < N)")
    command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    command.add_argument("--threads", type=int, default=0, help="CPU threads (default: every core)")


def run(options: argparse.Namespace) -> int:
    import torch

    from harness.cell.cell import checked
    from harness.images.code_shards import CodesWriter
    from harness.images.encode import Cropping, Pictures, open_tokenizer
    from harness.machine.environment import usable_cores
    from harness.subject.prepare import check_device

    for key, least in (("chunk", 1), ("batch", 1), ("threads", 0)):
        if getattr(options, key) < least:
            raise UserError(f"--{key} {getattr(options, key)}: expected at least {least}")
    checked("threads", options.threads, "--threads")
    share, device = share_of(options.shard), local_device(options.device)
    check_device(device, "float32")
    torch.set_num_threads(options.threads or usable_cores())
    tokenizer, weights = open_tokenizer(options.tokenizer, options.checkpoint, options.image_size)
    tokenizer = tokenizer.to(device)
    cropping = Cropping(tokenizer.image_size[0], options.crops, _factors(options.crop_factors))
    pictures = Pictures.open(options.data)
    writer = CodesWriter.open(options.out, _info(options, tokenizer, weights, cropping, pictures))
    _encode(writer, pictures, cropping, tokenizer, share)
    if writer.finish():
        print(f"{writer.folder}: {writer.info.images} images in {cropping.variants} crops, manifest written")
    else:
        left = sum(len(images) for images in writer.missing())
        print(f"{writer.folder}: {writer.info.images - left} of {writer.info.images} images")
    return 0


def _factors(text: str | None) -> tuple[float, ...]:
    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--crop-factors '{text}': expected numbers, e.g. 1.1,1.05") from None


def _info(
    options: argparse.Namespace,
    tokenizer: "Tokenizer",
    weights: Path,
    cropping: "Cropping",
    pictures: "Pictures",
) -> "CodesInfo":
    from harness.images.code_shards import CodesInfo
    from harness.images.folders import listing_hash
    from pardec.hashing import file_sha256

    return CodesInfo(
        tokenizer=options.tokenizer,
        tokenizer_sha256=file_sha256(weights),
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
    writer: "CodesWriter",
    pictures: "Pictures",
    cropping: "Cropping",
    tokenizer: "Tokenizer",
    share: "Share",
) -> None:
    """Make what is missing of this process's part, a shard on disk before the next begins."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import torch

    from harness.images.encode import encode_chunk

    missing = writer.missing(share)
    with progress_bar() as bar, ThreadPoolExecutor(torch.get_num_threads()) as pool:
        task = bar.add_task(writer.info.tokenizer, total=sum(len(images) for images in missing))
        for images in missing:
            parts = []
            files = pictures.files[images.start : images.stop]
            for codes in encode_chunk(files, cropping, tokenizer, writer.info.batch, pool):
                parts.append(codes)
                bar.advance(task, len(codes))
            writer.write(images, np.concatenate(parts))
