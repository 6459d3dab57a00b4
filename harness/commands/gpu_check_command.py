"""pardec gpu-check: whether a device computes what the CPU does, and how near its limits it comes."""

import argparse
from pathlib import Path

from harness.commands.common import existing_folder
from pardec.errors import UserError
from results.store import RESULTS

SUMMARY = (
    "check within some minutes that a GPU computes what the CPU does, and how near its limits it comes. Exit "
    "status: 0 nothing failed, 1 a check failed, 2 a mistake in the call"
)
GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"
"""In a checkout."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    command.add_argument(
        "--minutes", type=float, default=8.0, help="what doesn't fit is not run (default: %(default)g)"
    )
    command.add_argument(
        "--out",
        type=Path,
        default=RESULTS / "gpu-check.jsonl",
        metavar="FILE",
        help="rows; a page in Markdown is put beside them (default: %(default)s)",
    )
    command.add_argument(
        "--goldens",
        type=Path,
        metavar="DIR",
        help="folder of recordings (default: tests/goldens of a checkout)",
    )


def run(options: argparse.Namespace) -> int:
    if not 0 < options.minutes < 1e6:
        raise UserError(f"--minutes {options.minutes:g}: expected a number above 0")
    from harness.commands.gpu_check_run import run_and_show
    from harness.subject.prepare import check_device

    check_device(options.device, "float32")
    goldens = GOLDENS if GOLDENS.is_dir() else None
    if options.goldens is not None:
        goldens = existing_folder(options.goldens, "--goldens")
    return run_and_show(options.device, options.minutes * 60, options.out, goldens)
