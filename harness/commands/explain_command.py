"""pardec explain: the plan of a cell, drawn in the terminal, and what it costs, before it runs."""

import argparse
import dataclasses
import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell.cell import RANDOM
from harness.commands.common import RESULTS, add_machine_flags, overrides
from harness.machine.terminal import progress_bar
from pardec.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from harness.cell.cell import Cell
    from harness.subject.prepare import Prepared

SUMMARY = "show the plan of a cell, its order as a grid, and what it will cost"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "cell",
        metavar="CELL",
        help="'strategy=lpd,steps=10,guidance=2', a key (or its beginning) of a recorded cell, or SWEEP:KEY",
    )
    command.add_argument(
        "--results", type=Path, metavar="DIR", help=f"where keys are looked up ({RESULTS}/*)"
    )
    command.add_argument("--image", type=int, default=0, help="the image whose order is drawn (default: 0)")
    command.add_argument(
        "--count-flops",
        action="store_true",
        help="count FLOPs of a published network too, by decoding an image",
    )
    command.add_argument(
        "--device-card", metavar="NAME", help="predict the cost on this device: a100-80gb, h200, here, ..."
    )
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    changes = overrides(options)
    cell = find_cell(options.cell, changes, options.results)
    if options.image < 0:
        raise UserError(f"--image {options.image}: expected at least 0")
    if cell.is_published and cell.checkpoint is None:
        cell = dataclasses.replace(cell, checkpoint=RANDOM)  # a plan needs no weights
    if options.device_card is not None:
        from harness.cost.cards import card_named

        card_named(options.device_card)  # a wrong name is said before anything is computed
    _print(cell, options.image, options.count_flops or not cell.is_published)
    if options.device_card is not None:
        _print_cost(cell, options.device_card)
    return 0


def find_cell(text: str, changes: Mapping[str, Any], results: Path | None) -> "Cell":
    """The cell of an inline setting, of a sweep's key, or of a recorded row's key."""
    if "=" in text:
        return inline_cell(text, changes)
    sweep_name, colon, key = text.rpartition(":")
    if not re.fullmatch(r"[0-9a-f]{1,16}", key):
        raise UserError(
            f"cell '{text}': expected settings like strategy=lpd,steps=10, or a key of hex digits"
        )
    if colon:
        from harness.sweep.sweep import sweep_cells

        found = [
            cell for cell in sweep_cells(sweep_name, overrides=changes).cells if cell.key.startswith(key)
        ]
    else:
        found = _recorded(key, changes, results)
    if len(found) != 1:
        where = f"sweep '{sweep_name}'" if colon else f"the rows under '{results or RESULTS}'"
        raise UserError(
            f"cell '{text}': {len(found)} cells of {where} have a key that begins so; expected one"
        )
    return found[0]


def inline_cell(text: str, changes: Mapping[str, Any]) -> "Cell":
    """The cell of ``strategy=lpd,steps=10,order=random``; keys beyond a cell's own are strategy options."""
    from harness.cell.cell import RULES, Cell, checked, normalised
    from strategies.decoding import registry

    settings: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise UserError(f"cell '{text}': '{part}' is no setting; expected KEY=VALUE")
        if key in RULES and key != "options":
            settings[key] = checked(key, _value(value, key), f"cell '{text}'")
        else:
            given[key] = _value(value, key)
    if "strategy" not in settings:
        raise UserError(f"cell '{text}': no strategy; valid: {', '.join(registry.names())}")
    if settings["strategy"] not in registry.names():
        raise registry.unknown_strategy(settings["strategy"], f"cell '{text}'")
    _check_options(settings["strategy"], given, text)
    return normalised(Cell(**{**settings, "options": given, **changes}))


def _check_options(strategy: str, given: Mapping[str, Any], text: str) -> None:
    from harness.cell.cell import RULES
    from strategies.decoding import registry

    valid = [field.name for field in dataclasses.fields(registry.get(strategy))]
    for key in given:
        if key not in valid:
            raise unknown("key", key, [*valid, *(set(RULES) - {"options"})], f"cell '{text}'")


def _value(text: str, key: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "none" and key == "guidance":
        return False
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _recorded(key: str, changes: Mapping[str, Any], results: Path | None) -> "list[Cell]":
    """Cells of recorded rows, as far as a row tells."""
    from harness.cell.cell import Cell, checked, normalised
    from results.store import load_rows

    folders = [results] if results else sorted({path.parent for path in RESULTS.glob("*/*.jsonl")})
    rows = {row.cell: row for folder in folders for row in load_rows(folder) if row.cell.startswith(key)}
    cells = []
    for row in rows.values():
        if row.tier == "anchor":
            raise UserError(f"cell '{row.cell}' is an anchor ({row.label}): it decodes nothing")
        known = {
            "strategy": row.strategy,
            "options": row.options,
            "network": row.network,
            "steps": row.steps,
            "guidance": row.guidance,
            "guidance_schedule": row.guidance_schedule or "constant",
            "batch": row.batch,
            "dtype": row.dtype,
            "device": row.device,
            "seed": row.seed,
            "label": row.label,
        }
        for key, value in known.items():
            if value is not None:
                checked(key, value, f"row of cell '{row.cell}'")
        cells.append(normalised(Cell(**{**known, **changes})))
    return cells


def _print(cell: "Cell", image: int, with_flops: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from harness.subject.prepare import predict, prepare

    if cell.is_anchor:
        raise UserError(f"cell '{cell.key}' is an anchor ({cell.label}): it decodes nothing")
    prepared = prepare(cell)
    cell, memory = prepared.cell, predict(prepared)
    console = Console(highlight=False, soft_wrap=True)
    title = Text.assemble((cell.describe(), "bold"), f"  on {cell.network}, {cell.device}, {cell.dtype}")
    console.print(title)
    plan = prepared.plan([image])
    console.print(f"steps        {plan.steps}")
    console.print(f"group sizes  {short_sizes(plan.sizes)}")
    console.print(f"guidance     {_guidance(prepared, image)}")
    console.print(f"parameters   {memory.parameters:,}")
    console.print(f"FLOPs/image  {_flops(prepared) if with_flops else 'see --count-flops'}")
    weights, cache = memory.weight_bytes / 1e6, memory.cache_bytes / 1e6
    console.print(
        f"memory       weights {weights:.2f} MB, key/value cache at batch {cell.batch} {cache:.2f} MB, "
        f"together {weights + cache:.2f} MB"
    )
    console.print(f"\nstep that writes each position (image {image}, from 1)")
    console.print(order_grid(plan.step_of_position().reshape(-1, *plan.grid)[0], plan.steps))


def _print_cost(cell: "Cell", card_name: str) -> None:
    from harness.cost.cards import card_named
    from harness.cost.model import predict_cost
    from harness.subject.prepare import prepare

    card = card_named(card_name)
    cost = predict_cost(prepare(cell), card)
    unchecked = f"; unchecked: {', '.join(card.unchecked)}" if card.unchecked else ""
    parts = ("tokens", "guidance", "cache", "attention", "launch")
    shares = ", ".join(f"{name} {1e3 * getattr(cost, f'{name}_s'):.3g}" for name in parts)
    print(f"\npredicted on {card.title} ({card.source}{unchecked})")
    print(f"step         {1e3 * cost.step_s:.4g} ms on average, a batch {1e3 * cost.total_s:.4g} ms")
    print(f"             of it, ms: {shares}")
    print(f"throughput   {cost.throughput_images_per_s:.4g} images/s, without detokenizing")
    print(f"latency      {1e3 * cost.latency_s:.4g} ms for one image at batch 1")
    print(
        f"memory       {cost.peak_bytes / 1e6:.2f} MB at most: weights {cost.weight_bytes / 1e6:.2f}, "
        f"cache {cost.cache_bytes / 1e6:.2f}, activations {cost.activation_bytes / 1e6:.2f}, "
        f"kernels {cost.kernel_bytes / 1e6:.2f}"
    )


def _flops(prepared: "Prepared") -> str:
    import torch

    from harness.measure.measure import count_flops
    from harness.subject.subject import load

    torch.set_num_threads(prepared.cell.threads or 1)
    with progress_bar() as bar:
        bar.add_task("counting FLOPs of one image", total=None)
        return f"{count_flops(load(prepared)) / 1e9:,.4g} G, both halves of guidance"


def short_sizes(sizes: tuple[int, ...]) -> str:
    """Runs of equal sizes as ``1x4 4x15``."""
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    return " ".join(str(size) if count == 1 else f"{size}x{count}" for size, count in runs)


def _guidance(prepared: "Prepared", image: int) -> str:
    if prepared.guidance is None:
        return "none"
    plan = prepared.plan([image])
    weights = prepared.guidance.weights(plan)
    return (
        f"{prepared.guidance.schedule}, scale {prepared.guidance.scale:g}: "
        f"{weights[plan.given]:.2f} at the first place, {weights[-1]:.2f} at the last"
    )


def order_grid(step: "np.ndarray", steps: int) -> "Table":
    """Step numbers [h, w] from 1, early ones dark and late ones light."""
    from rich.table import Table
    from rich.text import Text

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
