"""pardec tune: read a guidance sweep's rows and write grid and choice into the cards of the zoo."""

import argparse
from pathlib import Path

from harness.commands.common import add_zoo_flag
from results.store import RESULTS

SUMMARY = "record the guidance scale of each network from a guidance sweep"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "results",
        type=Path,
        nargs="?",
        default=RESULTS / "guidance",
        help=f"rows of the sweep (default: {RESULTS}/guidance)",
    )
    add_zoo_flag(command)


def run(options: argparse.Namespace) -> int:
    from harness.train.tune import record
    from results.store import load_rows

    for network, scale in sorted(record(load_rows(options.results), options.zoo).items()):
        print(f"{network}: guidance {scale:g}")
    return 0
