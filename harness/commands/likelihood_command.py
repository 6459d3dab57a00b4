"""pardec likelihood: bits per token of held-out images, by order and by an ensemble of orders."""

import argparse
from pathlib import Path

from harness.commands.common import add_machine_flags

SUMMARY = "bits per token of held-out images, in every order and in their ensemble"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "cells",
        metavar="CELL",
        nargs="*",
        help="stored networks, as for lossiness: arpg or strategy=arpg,steps=16 (default: all of the zoo)",
    )
    command.add_argument(
        "--orders",
        nargs="+",
        metavar="RULE",
        help="of networks that decode any: own, random, raster, halton, s-curve, hilbert, spiral, subsample, "
        "locality (default: all)",
    )
    command.add_argument("--images", type=int, default=1000, help="held-out images (default: 1000)")
    command.add_argument("--data", metavar="SPEC", help="fashion, idx:DIR or imagefolder:PATH")
    command.add_argument("--seed", type=int, help="of random orders (default: 0)")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="write the table's lines as JSON Lines, too"
    )
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    from harness.commands.likelihood_run import likelihood

    return likelihood(options)
