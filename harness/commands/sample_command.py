"""pardec sample: a PNG grid of images, a row per class; or images around a given part of one."""

import argparse
from pathlib import Path

from harness.commands.common import add_machine_flags

SUMMARY = "draw images of some classes into a PNG grid, whole or around a given part"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "cell", metavar="CELL", help="settings as for explain: strategy=lpd,steps=10,guidance=2"
    )
    command.add_argument("--classes", metavar="LIST", help="e.g. 0,1,7 (default: all, at most 10)")
    command.add_argument("--class", metavar="N", dest="only", help="one class, the same as --classes N")
    command.add_argument("--per-class", type=int, default=8, metavar="N", help="images a row (default: 8)")
    command.add_argument("--seed", type=int, help="another seed draws other images")
    command.add_argument("--out", type=Path, default=Path("samples.png"), help="default: %(default)s")
    command.add_argument("--scale", type=int, default=3, help="pixels per pixel (default: 3)")
    command.add_argument(
        "--image", type=Path, metavar="FILE", help="keep a part of this image; rows open with it and the part"
    )
    command.add_argument("--mask", type=Path, metavar="FILE", help="white where --image is drawn anew")
    command.add_argument(
        "--paste-known",
        action="store_true",
        help="put the pixels outside the mask back over the tokenizer's version of them",
    )
    command.add_argument(
        "--enlarge",
        action="store_true",
        help="images of twice the side by resolution extrapolation (randar), each after the one it grew from",
    )
    command.add_argument(
        "--context-guidance",
        type=float,
        default=2.5,
        metavar="S",
        help="with --enlarge: guidance by the small image's tokens (default: %(default)s)",
    )
    command.add_argument(
        "--inpaint-demo",
        type=Path,
        metavar="DIR",
        help="complete and edit real images; stored in the results folder DIR, whose report shows them",
    )
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    from harness.commands.sample_run import sample

    return sample(options)
