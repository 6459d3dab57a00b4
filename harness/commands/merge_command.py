"""pardec merge: rows of several machines in one folder, with their pictures and images."""

import argparse
from pathlib import Path

SUMMARY = "bring the results of several machines together in one folder"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sources", type=Path, nargs="+", metavar="RESULTS", help="result folder or file; stays as it is"
    )
    command.add_argument(
        "--into",
        type=Path,
        required=True,
        metavar="DIR",
        help="result folder that receives them, made if need be; what it holds stays",
    )


def run(options: argparse.Namespace) -> int:
    from harness.images.merging import merge_images
    from harness.sweep.lock import only_sweep_in
    from results.merge import merge
    from results.store import ResultStore, load_rows

    for source in options.sources:
        load_rows(source)  # a mistake is told before a folder is made
    store = ResultStore(options.into)
    with only_sweep_in(store):
        images = merge_images(options.sources, store.folder)
        merged = merge(options.sources, store.folder)
    print(f"{options.into}: {merged}" + (f", {images} files of images copied" if images else ""))
    for name in merged.missing:
        print(f"missing: {name}")
    return 0
