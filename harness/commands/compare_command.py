"""pardec compare: what changed between two result folders or files."""

import argparse
from pathlib import Path

SUMMARY = "compare two result folders or files, with the intervals of the differences"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", type=Path, metavar="A", help="result folder or file, e.g. a baseline")
    command.add_argument("b", type=Path, metavar="B", help="result folder or file")


def run(options: argparse.Namespace) -> int:
    from reports.compare import compare, print_comparison

    print_comparison(compare(options.a, options.b))
    return 0
