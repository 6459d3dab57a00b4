"""pardec explain: the plan of a cell, drawn in the terminal, and what it costs, before it runs."""

import argparse
from pathlib import Path

from harness.commands.common import add_machine_flags
from results.store import RESULTS

SUMMARY = "show the plan of a cell, its order as a grid, and what it will cost"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "cell",
        metavar="CELL",
        help="'lpd,steps=10,guidance=2' (commas of a value in quotes: label=\"a, b\"), a key (or its "
        "beginning) of a recorded cell, or SWEEP:KEY",
    )
    command.add_argument(
        "--results", type=Path, metavar="DIR", help=f"where keys are looked up ({RESULTS}/*)"
    )
    command.add_argument("--image", type=int, default=0, help="the image whose order is drawn (default: 0)")
    command.add_argument(
        "--count-flops",
        action="store_true",
        help="count FLOPs of a published network too, by decoding an image",
    )
    command.add_argument(
        "--device-card", metavar="NAME", help="predict the cost on this device: a100-80gb, h200, here, ..."
    )
    command.add_argument(
        "--acceptance",
        type=float,
        metavar="SHARE",
        help="of tested drafts, of which the cost of a speculative decoder follows",
    )
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    from harness.commands.explain_run import explain

    return explain(options)
