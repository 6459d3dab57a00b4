"""pardec fetch: published checkpoint files, downloaded, verified and inspected."""

import argparse

from harness.commands.common import add_checkpoints_flag, existing_folder
from harness.weights.fetch import file_names, locate, published_files

SUMMARY = "download the published file of a network or tokenizer, and verify it"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="network or tokenizer (without: list what there is)"
    )
    add_checkpoints_flag(command)


def run(options: argparse.Namespace) -> int:
    first = options.checkpoints
    if first is not None:
        first = existing_folder(first, "--checkpoints")
    if options.names:
        from harness.weights.download import fetch

        for name in [one for asked in options.names for one in file_names(asked)]:
            print(fetch(name, first))
    else:
        files = published_files()
        width = max(map(len, files))
        for name, one in files.items():
            place = locate(one.file, first) or "not here"
            print(f"{name:<{width}}  {one.repository}/{one.file}, licence: {one.licence}; {place}")
    return 0
