"""pardec generate: many images of one cell into shards, resumable at any range, split over processes."""

import argparse
from pathlib import Path

from harness.commands.common import add_machine_flags, add_scoring_flags

SUMMARY = "generate the images of a cell into shards on disk; goes on where it was cut"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("cell", metavar="CELL", help="settings as for explain: strategy=lpd,steps=10")
    command.add_argument("--images", type=int, help="how many (default: as the cell says)")
    command.add_argument("--seed", type=int, help="another seed draws other images")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    command.add_argument(
        "--chunk", type=int, help="images a shard, a multiple of the batch (default: 10 of them)"
    )
    command.add_argument("--shard", metavar="I/N", help="only every N-th chunk, from the I-th (0 <= I < N)")
    command.add_argument(
        "--dry-run", action="store_true", help="show which process makes which images and what it holds"
    )
    command.add_argument(
        "--processes", metavar="MxN", help="with --dry-run: of N processes on each of M machines"
    )
    command.add_argument(
        "--adm", type=Path, metavar="FILE", help="when all are there: write them for the ADM evaluator"
    )
    command.add_argument("--png", type=Path, metavar="DIR", help="when all are there: write a PNG each")
    command.add_argument(
        "--against", type=Path, metavar="DIR", help="print the share of tokens that differ from another run's"
    )
    add_scoring_flags(command)
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    from harness.commands.generate_run import generate

    return generate(options)
