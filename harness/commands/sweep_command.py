"""pardec sweep: run the cells of a sweep file, skip what is done, show the table, write the report."""

import argparse
from pathlib import Path

from harness.commands.common import add_machine_flags, add_scoring_flags
from results.store import RESULTS

SUMMARY = "run a sweep, or go on with it"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sweep",
        metavar="FILE|NAME|CELL",
        help="sweep file, the name of one that ships, or one cell: strategy=lpd,steps=10",
    )
    command.add_argument(
        "-k",
        dest="select",
        action="append",
        metavar="EXPR",
        help="only these cells: strategy=lpd,steps<=8; several -k must all be met",
    )
    command.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="CELL",
        help="one more cell at the file's own settings, a plug-in's for one: strategy=NAME,steps=64",
    )
    command.add_argument(
        "--results", type=Path, metavar="DIR", help=f"result folder (default: {RESULTS}/NAME)"
    )
    command.add_argument("--dry-run", action="store_true", help="list the cells and run nothing")
    command.add_argument(
        "--device-card",
        metavar="NAME",
        help="with --dry-run: predict hours on this device, not on this machine",
    )
    command.add_argument("--no-report", action="store_true", help="stop after the last cell")
    command.add_argument("--images", type=int, help="images per cell, instead of what the file says")
    command.add_argument(
        "--max-images",
        type=int,
        metavar="N",
        help="at most N images per cell, generated once, every time taken once",
    )
    command.add_argument("--seed", type=int, help="seed, instead of what the file says")
    command.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where cells run: one after the other on this machine, or one per device of a Ray cluster",
    )
    command.add_argument(
        "--address", metavar="HOST:PORT", help="head of the Ray cluster (default: the one of this machine)"
    )
    add_scoring_flags(command)
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    from harness.commands.sweep_run import sweep

    return sweep(options)
