"""The plan of a cell in the terminal: steps, guidance, work and memory, and its order as a grid."""

import argparse
import dataclasses
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cell.cell import RANDOM, Cell
from harness.commands.common import overrides
from harness.cost.model import predict_cost
from harness.cost.work import Unforeseeable
from harness.machine.cards import card_named
from harness.machine.terminal import progress_bar
from harness.measure.measure import count_flops
from harness.subject.prediction import predict
from harness.subject.prepare import Prepared, prepare
from harness.subject.subject import load
from harness.sweep.find import find_cell
from pardec.errors import UserError, visible


def explain(options: argparse.Namespace) -> int:
    if options.acceptance is not None and options.device_card is None:
        raise UserError(f"--acceptance {options.acceptance:g}: only with --device-card")
    changes = overrides(options)
    cell = find_cell(options.cell, changes, options.results)
    if options.acceptance is not None and not 0 <= options.acceptance <= 1:
        raise UserError(f"--acceptance {options.acceptance:g}: expected 0 to 1")
    if options.image < 0:
        raise UserError(f"--image {options.image}: expected at least 0")
    by_key = "=" not in options.cell and ":" not in options.cell
    if cell.is_published and (cell.checkpoint is None or (by_key and not Path(cell.checkpoint).is_file())):
        # A plan needs no weights, and those of a row may lie on another machine.
        none: dict[str, Any] = dict.fromkeys(("weights", "tokenizer_checkpoint", "tokenizer_weights"))
        cell = dataclasses.replace(cell, checkpoint=RANDOM, **none)
    if options.device_card is not None:
        card_named(options.device_card)  # a wrong name is said before anything is computed
    _print(cell, options.image, options.count_flops or not cell.is_published)
    if options.device_card is not None:
        _print_cost(cell, options.device_card, options.acceptance)
    return 0


def _print(cell: Cell, image: int, with_flops: bool) -> None:
    if cell.is_anchor:
        raise UserError(f"cell '{cell.key}' is an anchor ({visible(cell.describe())}): it decodes nothing")
    prepared = prepare(cell)
    cell, memory = prepared.cell, predict(prepared)
    console = Console(highlight=False, soft_wrap=True)
    where = f"  on {cell.network}, {cell.device}, {cell.dtype}"
    title = Text.assemble((visible(cell.describe()), "bold"), visible(where))
    console.print(title)
    plan = prepared.plan([image])
    console.print(f"steps        {plan.steps_in_words()}")
    console.print(
        f"group sizes  {'decided while decoding' if plan.sizes is None else short_sizes(plan.sizes)}"
    )
    console.print(f"guidance     {_guidance(prepared, image)}")
    console.print(f"parameters   {memory.parameters:,}")
    if prepared.strategy.decides_steps and cell.checkpoint == RANDOM:
        flops = "decided while decoding, by trained weights"
    else:
        flops = _flops(prepared) if with_flops else "see --count-flops"
    console.print(f"FLOPs/image  {flops}")
    weights, cache = memory.weight_bytes / 1e6, memory.cache_bytes / 1e6
    console.print(
        f"memory       weights {weights:.2f} MB, key/value cache at batch {cell.batch} {cache:.2f} MB, "
        f"together {weights + cache:.2f} MB"
    )
    if plan.opened:
        console.print("\nwhen a place is written is decided while decoding: the order map of a run shows it")
        return
    if any(one != plan.grid for one in plan.maps):
        console.print("maps         " + " ".join(f"{rows}x{columns}" for rows, columns in plan.maps))
        return
    console.print(f"\nstep that writes each position (image {image}, from 1)")
    console.print(order_grid(plan.picture(plan.step_of_position()[0]), plan.most_steps))


def _print_cost(cell: Cell, card_name: str, acceptance: float | None) -> None:
    card, prepared = card_named(card_name), prepare(cell)
    try:
        cost = predict_cost(prepared, card, acceptance=acceptance)
    except Unforeseeable as error:
        told = "; give the share of drafts that are accepted: --acceptance 0.7"
        ending = told if prepared.strategy.tests_drafts else ""
        raise UserError(f"--device-card {card_name}: no cost is predicted, for {error}{ending}") from None
    unchecked = f"; unchecked: {', '.join(card.unchecked)}" if card.unchecked else ""
    parts = ("tokens", "guidance", "cache", "attention", "launch")
    shares = ", ".join(f"{name} {1e3 * getattr(cost, f'{name}_s'):.3g}" for name in parts)
    print(f"\npredicted on {card.title} ({card.source}{unchecked})")
    steps = f"{1e3 * cost.step_s:.4g} ms on average of {cost.steps}"
    print(f"step         {steps}, a batch {1e3 * cost.total_s:.4g} ms")
    print(f"             of it, ms: {shares}")
    print(f"throughput   {cost.throughput_images_per_s:.4g} images/s, without detokenizing")
    print(f"latency      {1e3 * cost.latency_s:.4g} ms for one image at batch 1")
    print(
        f"memory       {cost.peak_bytes / 1e6:.2f} MB at most: weights {cost.weight_bytes / 1e6:.2f}, "
        f"cache {cost.cache_bytes / 1e6:.2f}, activations {cost.activation_bytes / 1e6:.2f}, "
        f"kernels {cost.kernel_bytes / 1e6:.2f}"
    )


def _flops(prepared: Prepared) -> str:
    torch.set_num_threads(prepared.cell.threads or 1)
    with progress_bar() as bar:
        bar.add_task("counting FLOPs of one image", total=None)
        halves = "" if prepared.guidance is None else ", both halves of guidance"
        return f"{count_flops(load(prepared)) / 1e9:,.4g} G{halves}"


def short_sizes(sizes: tuple[int, ...]) -> str:
    """Runs of equal sizes as ``1x4 4x15``."""
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    return " ".join(str(size) if count == 1 else f"{size}x{count}" for size, count in runs)


def _guidance(prepared: Prepared, image: int) -> str:
    if prepared.guidance is None:
        return "none"
    plan = prepared.plan([image])
    weights = prepared.guidance.weights(plan)
    return (
        f"{prepared.guidance.schedule}, scale {prepared.guidance.scale:g}: "
        f"{weights[plan.given]:.2f} at the first place, {weights[-1]:.2f} at the last"
    )


def order_grid(step: "np.ndarray", steps: int) -> Table:
    """Step numbers [h, w] from 1, early ones dark and late ones light."""
    width = len(str(steps))
    table = Table.grid(padding=0)
    for row in step:
        cells = []
        for value in row:
            shade = int(60 + 180 * value / max(steps - 1, 1))
            ink = "white" if shade < 150 else "black"
            cells.append(Text(f" {value + 1:>{width}} ", style=f"{ink} on rgb({shade // 3},{shade},{shade})"))
        table.add_row(*cells)
    return table
