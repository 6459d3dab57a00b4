"""pardec generate: many images of one cell into shards, resumable at any range, split over processes."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.common import add_machine_flags, add_scoring_flags, overrides, share_of
from harness.machine.distributed import local_device, processes
from harness.machine.terminal import progress_bar
from pardec.errors import UserError

if TYPE_CHECKING:
    from harness.cell.cell import Cell
    from harness.images.shards import Shards
    from harness.images.stores import ImageStore

SUMMARY = "generate the images of a cell into shards on disk; goes on where it was cut"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("cell", metavar="CELL", help="settings as for explain: strategy=lpd,steps=10")
    command.add_argument("--images", type=int, help="how many (default: as the cell says)")
    command.add_argument("--seed", type=int, help="another seed draws other images")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    command.add_argument(
        "--chunk", type=int, help="images a shard, a multiple of the batch (default: 10 of them)"
    )
    command.add_argument("--shard", metavar="I/N", help="only every N-th chunk, from the I-th (0 <= I < N)")
    command.add_argument(
        "--adm", type=Path, metavar="FILE", help="when all are there: write them for the ADM evaluator"
    )
    command.add_argument("--png", type=Path, metavar="DIR", help="when all are there: write a PNG each")
    command.add_argument(
        "--against", type=Path, metavar="DIR", help="print the share of tokens that differ from another run's"
    )
    add_scoring_flags(command)
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    import torch

    from harness.images.shards import Shards
    from harness.images.stores import ImageStore
    from harness.subject.prepare import check_tokenizer

    cell, share = _cell(options), share_of(options.shard)
    if options.adm is not None or options.png is not None or _judged(cell):
        check_tokenizer(cell)
    chunk = options.chunk
    if chunk is not None and (chunk < 1 or chunk % cell.batch):
        raise UserError(f"--chunk {chunk}: expected a multiple of the batch, {cell.batch}")
    other = None if options.against is None else Shards.read(options.against)
    torch.set_num_threads(cell.threads)
    shards = Shards.open(options.out, cell)
    with processes(cell.device) as group:
        _generate(cell, ImageStore.of(shards, cell, chunk, share))
        group.wait()
    if group.is_first:
        _finish(cell, shards, options, other)
    return 0


def _cell(options: argparse.Namespace) -> "Cell":
    from harness.commands.explain_command import find_cell
    from harness.subject.pins import finished

    changes = overrides(options)
    if "device" in changes:
        changes["device"] = local_device(changes["device"])
    cell = find_cell(options.cell, changes, None)
    if cell.is_anchor:
        raise UserError(f"cell '{options.cell}': an anchor generates nothing")
    return finished(cell)


def _generate(cell: "Cell", store: "ImageStore") -> None:
    """Make what is missing of this process's part, a shard on disk before the next begins."""
    from rich.markup import escape

    from harness.subject.prepare import prepare
    from harness.subject.subject import load, run_batch

    if not store.images_missing:
        return
    subject = load(prepare(cell))
    with progress_bar() as bar:
        task = bar.add_task(escape(cell.describe()), total=store.images_missing)
        for images in store.batches():
            batch = run_batch(subject, images)
            store.add(images, batch.decoded.tokens, batch.pixels)
            bar.advance(task, len(images))


def _finish(cell: "Cell", shards: "Shards", options: argparse.Namespace, other: "Shards | None") -> None:
    """Say what is there; export and compare what was asked for once all images are."""
    from harness.images.shards import export_adm, export_png, flipped

    left = sum(len(images) for images in shards.missing(1))
    print(f"{shards.folder}: {shards.total - left} of {shards.total} images")
    if left:
        return
    if options.adm is not None:
        export_adm(shards, options.adm)
        print(options.adm)
    if options.png is not None:
        export_png(shards, options.png)
        print(options.png)
    if _judged(cell):
        _score(cell, shards)
    if other is not None:
        print(f"tokens that differ from {other.folder}: {flipped(shards, other):.3g}")


def _judged(cell: "Cell") -> bool:
    return cell.reference is not None or cell.clean_reference is not None


def _score(cell: "Cell", shards: "Shards") -> None:
    """Print the quality of the images, or why there is none."""
    import numpy as np

    from harness.quality.assess.adm import assess
    from harness.subject.prepare import prepare
    from reports.tables import with_interval

    labels = np.arange(shards.total) % prepare(cell).config.classes
    row, reasons = assess(cell, shards.folder, lambda: shards.parts("images"), labels)
    if not row:
        print(f"quality: {reasons['quality']}")
        return
    for name, metric in row["quality"].items():
        found = with_interval(metric["value"], metric["low"], metric["high"])
        print(f"{name}: {reasons[f'quality.{name}'] if metric['value'] is None else found}")
