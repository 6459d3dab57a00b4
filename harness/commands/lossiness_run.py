"""The tables of what decoding in groups loses: worlds enumerated, or a stored network judged."""

import argparse
import re
from collections.abc import Sequence

import torch

from harness.cell.cell import checked
from harness.commands.common import overrides
from harness.lossiness.conditionals import Undefined
from harness.lossiness.estimate import estimate
from harness.lossiness.exact import LARGEST
from harness.lossiness.tables import ESTIMATE_HEADINGS, EXACT_HEADINGS, estimate_cells, exact_lines
from harness.lossiness.worlds import OWN, RULES, World
from harness.machine.terminal import progress_bar
from harness.subject.prepare import prepare
from harness.subject.subject import load
from harness.sweep.find import find_cell
from pardec.errors import UserError, unknown
from reports.tables import print_plain
from strategies.decoding import registry

_NOTE = (
    "p: the network one token at a time in the plan's order; q: as decoded. KL(p || q) = correlation (the "
    "groups' conditional total correlation) + mismatch (other marginals when asked in a group). "
)


def lossiness(options: argparse.Namespace) -> int:
    for name in ("networks", "images"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: expected at least 1")
    checked("guidance", options.guidance, "--guidance")
    return _enumerated(options) if options.cell is None else _stored(options)


def _enumerated(options: argparse.Namespace) -> int:
    overrides(options)  # loads the plug-ins
    names = options.strategies or registry.loadable()
    for name in names:
        if name not in registry.names():
            raise unknown("strategy", name, registry.names(), "--strategies")
    if options.codes < 2:
        raise UserError(f"--codes {options.codes}: expected at least 2")
    worlds = [World(_grid(text), options.codes) for text in options.grid]
    for world in worlds:
        images = options.codes ** (world.grid[0] * world.grid[1])
        if images > LARGEST:
            raise UserError(
                f"--grid {world.grid[0]}x{world.grid[1]} --codes {options.codes}: {images} images are too "
                f"many to enumerate; expected at most {LARGEST}"
            )
    orders = _orders(options.orders)
    torch.set_num_threads(1)
    with progress_bar() as bar:
        bar.add_task("enumerating", total=None)
        lines = exact_lines(worlds, names, orders, options.guidance, options.steps, options.networks)
    _print(EXACT_HEADINGS, [line.cells() for line in lines])
    print(_NOTE + f"Means over {options.networks} random networks and orders with 95 % intervals.")
    return 0 if all(line.holds for line in lines) else 1


def _stored(options: argparse.Namespace) -> int:
    cell = find_cell(options.cell, overrides(options), None)
    if cell.is_anchor:
        raise UserError(f"cell '{options.cell}': an anchor decodes nothing")
    torch.set_num_threads(cell.threads)
    subject = load(prepare(cell))
    others = _orders(options.orders)
    if others is None:
        others = list(RULES) if subject.prepared.strategy.any_order else []
    lines: list[list[str]] = []
    first = None
    with progress_bar() as bar:
        task = bar.add_task("decoding and judging", total=1 + len(others))
        for number, rule in enumerate([OWN, *others]):
            try:
                found = estimate(
                    subject,
                    options.images,
                    rule,
                    lambda share, done=number: bar.update(task, completed=done + share),  # type: ignore[misc]
                )
            except (Undefined, UserError) as error:
                if rule == OWN:
                    raise UserError(str(error)) from None
                lines.append([rule, "", f"undefined: {error}", "", ""])
                continue
            first = first or found
            lines.append(estimate_cells(rule, found, first))
    _print(ESTIMATE_HEADINGS, lines)
    print(
        f"{subject.prepared.cell.describe()}: mean of {options.images} images with 95 % intervals; the judge "
        f"is {subject.prepared.cell.network} itself, one token at a time in the same order."
    )
    return 0


def _grid(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text)
    if match is None:
        raise UserError(f"--grid {text}: expected HEIGHTxWIDTH, such as 2x3")
    return int(match[1]), int(match[2])


def _orders(names: Sequence[str] | None) -> list[str] | None:
    for name in names or ():
        if name not in RULES:
            raise unknown("order", name, RULES, "--orders")
    return None if names is None else list(names)


def _print(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    print_plain(headings, lines)
