"""pardec report: tables and pictures of a result folder as one offline page."""

import argparse
from pathlib import Path

from harness.commands.common import introduce_strategies
from harness.machine.terminal import progress_bar
from results.store import RESULTS

SUMMARY = "write tables and pictures of a result folder as one offline page"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--results",
        type=Path,
        default=RESULTS / "quick",
        metavar="DIR",
        help="folder or file of rows (default: %(default)s)",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="default: the folder 'report' beside the rows"
    )


def run(options: argparse.Namespace) -> int:
    print(f"report: {write(options.results, options.out)}")
    return 0


def write(results: Path, out: Path | None) -> Path:
    """The report of ``results``, with a progress bar; returns the path of the page."""
    from reports.site import write_report

    introduce_strategies()
    with progress_bar() as bar:
        task = bar.add_task("report", total=None)
        return write_report(
            results,
            out,
            lambda done, total, name: bar.update(task, completed=done, total=total, description=name),
        )
