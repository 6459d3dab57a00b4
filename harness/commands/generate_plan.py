"""pardec generate --dry-run: which process makes which images and what it holds; nothing is made."""

import argparse

from rich.console import Console

from harness.cell.cell import Cell
from harness.commands.common import share_of
from harness.images.dealing import processes_of, ranges
from harness.images.shards import Shards
from harness.images.stores import shard_length
from harness.machine.distributed import launch
from harness.subject.prediction import predict
from harness.subject.prepare import prepare
from harness.sweep.elsewhere import preparable
from reports.escape import terminal
from reports.fitting import DASH, print_fitting

NUMBERS = ("shards", "images", "weights MB", "cache MB")


def show_plan(cell: Cell, options: argparse.Namespace, console: Console | None = None) -> None:
    """A line for every process; of those that torchrun started the first one prints it."""
    started = launch()
    if started.rank:
        return
    share = None if options.shard is None else share_of(options.shard)
    processes = processes_of(options.processes, share, started, cell.device)
    shards, length = Shards.foreseen(options.out, cell), shard_length(cell, options.chunk)
    memory = predict(prepare(preparable(cell)))
    sizes = [f"{size / 1e6:.1f}" for size in (memory.weight_bytes, memory.cache_bytes)]
    lines = []
    for process in processes:
        chunks = shards.missing(length, process.share)
        part = f"{process.share.index}/{process.share.count}"
        machine = DASH if process.machine is None else str(process.machine)
        counts = [str(len(chunks)), str(sum(map(len, chunks)))]
        lines.append([part, machine, process.device, ranges(chunks) or DASH, *counts, *sizes])
    left = sum(map(len, shards.missing(1)))
    title = f"{cell.describe()}: {shards.total - left} of {shards.total} images are in {options.out}"
    headings = ("process", "machine", "device", "makes", *NUMBERS)
    print_fitting(console or Console(), headings, lines, right=NUMBERS, title=terminal(title))
