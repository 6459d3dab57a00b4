"""pardec inspect: what a published checkpoint file is, from its keys and shapes alone."""

import argparse
import sys
from pathlib import Path

from harness.commands.common import add_plugin_flag

SUMMARY = "say which network a checkpoint file holds, and what is missing from it"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help=".pt, .pth, .bin or .safetensors")
    command.add_argument(
        "--all", action="store_true", help="list every tensor that is missing, extra or of another shape"
    )
    command.add_argument("--weights", metavar="NAME", help="of several in the file: model, ema, ...")
    add_plugin_flag(command)


def run(options: argparse.Namespace) -> int:
    """0 for a complete network of a known family, of a published size or not; 1 for an incomplete one.

    A file that can't be read, or is of no known family, ends like every user's mistake: one line and 2.
    """
    from harness.subject.prepare import load_plugins
    from harness.weights.inspection import inspect_file

    load_plugins(map(str, options.plugin))
    found = inspect_file(options.file, options.weights)
    if not found.complete:
        if options.all:
            for name, entries in found.differences.groups():
                print(*(f"{name}: {entry}" for entry in entries), sep="\n")
        print(f"pardec: {found.verdict()}", file=sys.stderr)
        return 1
    for name, value in found.lines():
        print(f"{name}: {value}")
    return 0
