"""pardec encode: a folder of images to shards of codes, resumable, split over processes."""

import argparse
from pathlib import Path

from pardec.files import spec_of

SUMMARY = "encode an image folder into shards of codes to train on; goes on where it was cut"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data", required=True, type=spec_of, metavar="SPEC", help="imagefolder:PATH, one folder a class"
    )
    command.add_argument(
        "--tokenizer", required=True, metavar="NAME", help="vq-llamagen, vq-maskgit, ... or fsq"
    )
    command.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="the authors' weights (fsq: the zoo's)"
    )
    command.add_argument("--weights", metavar="NAME", help="of several in that file: model, ema, ...")
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
    command.add_argument(
        "--skip-broken", action="store_true", help="leave out pictures that can't be read, and list them"
    )
    command.add_argument("--shard", metavar="I/N", help="only every N-th shard, from the I-th (0 <= I < N)")
    command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    command.add_argument("--threads", type=int, default=0, help="CPU threads (default: every core)")


def run(options: argparse.Namespace) -> int:
    from harness.commands.encode_run import encode

    return encode(options)
