"""pardec compare: two result folders or files, or the strategies of one."""

import argparse
from pathlib import Path

from harness.commands.common import introduce_strategies

SUMMARY = "compare two sets of results, or the strategies of one, with intervals"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", type=Path, metavar="A", help="result folder or file, e.g. a baseline")
    command.add_argument(
        "b",
        type=Path,
        metavar="B",
        nargs="?",
        help="result folder or file (absent: A's strategies against each other)",
    )


def run(options: argparse.Namespace) -> int:
    from reports.compare import compare, compare_within, print_comparison, print_text_tables

    introduce_strategies()
    if options.b is None:
        print_text_tables(compare_within(options.a))
        return 0
    print_comparison(compare(options.a, options.b))
    return 0
