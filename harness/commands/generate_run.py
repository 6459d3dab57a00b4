"""Images of a cell into shards: this process's part, and what is exported once all are there."""

import argparse
import dataclasses

import numpy as np
import torch
from rich.markup import escape

from harness.cell.cell import Cell
from harness.commands.common import overrides, share_of
from harness.commands.generate_plan import show_plan
from harness.images.pngs import check_png, export_png
from harness.images.shards import Shards, export_adm, flipped
from harness.images.stores import ImageStore
from harness.machine.distributed import local_device, processes
from harness.machine.terminal import progress_bar
from harness.measure.choose import Choice
from harness.measure.counts import counters_of
from harness.quality.assess.adm import assess
from harness.subject.pins import finished
from harness.subject.prepare import check_tokenizer, prepare
from harness.subject.subject import load, run_batch
from harness.sweep.elsewhere import foreseen
from harness.sweep.find import find_cell
from pardec.errors import UserError
from reports.tables import with_interval


def generate(options: argparse.Namespace) -> int:
    if options.processes is not None and not options.dry_run:
        raise UserError(f"--processes '{options.processes}': only with --dry-run; torchrun starts processes")
    cell = _found(options)
    if options.dry_run:
        _check_chunk(options.chunk, cell)
        show_plan(foreseen(cell), options)
        return 0
    cell, share = finished(cell), share_of(options.shard)
    if options.adm is not None or options.png is not None or _judged(cell):
        check_tokenizer(cell)
    if options.png is not None:
        check_png(options.png, cell)
    chunk = options.chunk
    _check_chunk(chunk, cell)
    other = None if options.against is None else Shards.read(options.against)
    torch.set_num_threads(cell.threads)
    shards = Shards.open(options.out, cell)
    with processes(cell.device) as group:
        _generate(cell, ImageStore.of(shards, cell, chunk, share))
        group.wait()
    if group.is_first:
        _finish(cell, shards, options, other)
    return 0


def _check_chunk(chunk: int | None, cell: Cell) -> None:
    if chunk is not None and (chunk < 1 or chunk % cell.batch):
        raise UserError(f"--chunk {chunk}: expected a multiple of the batch, {cell.batch}")


def _found(options: argparse.Namespace) -> Cell:
    """The cell, on this process's own device."""
    cell = find_cell(options.cell, overrides(options), None)
    if cell.is_anchor:
        raise UserError(f"cell '{options.cell}': an anchor generates nothing")
    return cell if options.dry_run else dataclasses.replace(cell, device=local_device(cell.device))


def _generate(cell: Cell, store: ImageStore) -> None:
    """Make what is missing of this process's part, a shard on disk before the next begins."""
    if not store.images_missing:
        return
    subject = Choice(load(prepare(cell)), store.shards.folder).at(cell.batch)
    with progress_bar() as bar:
        task = bar.add_task(escape(cell.describe()), total=store.images_missing)
        for images in store.batches():
            batch = run_batch(subject, images)
            store.add(images, batch.codes, batch.pixels, counters_of(batch.decoded))
            bar.advance(task, len(images))


def _finish(cell: Cell, shards: Shards, options: argparse.Namespace, other: Shards | None) -> None:
    """Say what is there; export and compare what was asked for once all images are."""
    left = sum(len(images) for images in shards.missing(1))
    print(f"{shards.folder}: {shards.total - left} of {shards.total} images")
    if left:
        return
    if options.adm is not None:
        export_adm(shards, options.adm)
        print(options.adm)
    if options.png is not None:
        export_png(shards, options.png, cell)
        print(options.png)
    if _judged(cell):
        _score(cell, shards)
    if other is not None:
        both = min(shards.total, other.total)
        print(f"tokens of {both} images that differ from {other.folder}: {flipped(shards, other):.3g}")


def _judged(cell: Cell) -> bool:
    return cell.reference is not None or cell.clean_reference is not None


def _score(cell: Cell, shards: Shards) -> None:
    """Print the quality of the images, or why there is none."""
    labels = np.arange(shards.total) % prepare(cell).config.classes
    row, reasons = assess(cell, shards.folder, lambda: shards.parts("images"), labels)
    if not row:
        print(f"quality: {reasons['quality']}")
        return
    for name, metric in row["quality"].items():
        found = with_interval(metric["value"], metric["low"], metric["high"])
        print(f"{name}: {reasons[f'quality.{name}'] if metric['value'] is None else found}")
