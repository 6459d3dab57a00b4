"""The tables of what decoding in groups loses: worlds enumerated, or a stored network judged."""

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from harness.cell.cell import checked
from harness.commands.common import overrides
from harness.lossiness.conditionals import Undefined
from harness.lossiness.estimate import estimate
from harness.lossiness.exact import LARGEST
from harness.lossiness.tables import (
    ESTIMATE_HEADINGS,
    EXACT_HEADINGS,
    estimate_cells,
    exact_lines,
    require_figures,
)
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
_GRIDS, _CODES, _GUIDANCE, _NETWORKS = ("2x2", "2x3"), 3, 2.0, 5
"""Of enumerated worlds, unless flags say otherwise."""
_IMAGES = 200
"""The same of a stored network."""


def lossiness(options: argparse.Namespace) -> int:
    for name in ("networks", "images"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} {value}: expected at least 1")
    asked = {
        name: checked(name, getattr(options, name), f"--{name}")
        for name in ("steps", "guidance")
        if getattr(options, name) is not None
    }
    if options.cell is None:
        _refuse(options, ("images",), "only with CELL, a stored network")
        return _enumerated(options)
    _refuse(options, ("strategies", "grid", "codes", "networks"), "only without CELL, of enumerated worlds")
    return _stored(options, asked)


def _refuse(options: argparse.Namespace, names: Iterable[str], where: str) -> None:
    """UserError for a flag that would be left unread."""
    for name in names:
        value = getattr(options, name)
        if value is not None:
            given = " ".join(value) if isinstance(value, list) else value
            raise UserError(f"--{name} {given}: {where}")


def _enumerated(options: argparse.Namespace) -> int:
    overrides(options)  # loads the plug-ins
    codes = _CODES if options.codes is None else options.codes
    guidance = _GUIDANCE if options.guidance is None else options.guidance
    networks = options.networks or _NETWORKS
    names = options.strategies or registry.loadable()
    for name in names:
        if name not in registry.names():
            raise unknown("strategy", name, registry.names(), "--strategies")
    if codes < 2:
        raise UserError(f"--codes {codes}: expected at least 2")
    worlds = [World(_grid(text), codes) for text in options.grid or _GRIDS]
    for world in worlds:
        images = codes ** (world.grid[0] * world.grid[1])
        if images > LARGEST:
            raise UserError(
                f"--grid {world.grid[0]}x{world.grid[1]} --codes {codes}: {images} images are too "
                f"many to enumerate; expected at most {LARGEST}"
            )
    orders = _orders(options.orders)
    torch.set_num_threads(1)
    with progress_bar() as bar:
        bar.add_task("enumerating", total=None)
        lines = exact_lines(worlds, names, orders, guidance, options.steps, networks)
    _print(EXACT_HEADINGS, [line.cells() for line in lines])
    print(_NOTE + f"Means over {networks} random networks and orders with 95 % intervals.")
    require_figures(lines)
    return 1 if any(line.holds is False for line in lines) else 0


def _stored(options: argparse.Namespace, asked: Mapping[str, Any]) -> int:
    """asked: settings that flags put in place of the cell's."""
    images = options.images or _IMAGES
    cell = find_cell(options.cell, {**overrides(options), **asked}, None)
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
                    images,
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
        f"{subject.prepared.cell.describe()}: mean of {images} images with 95 % intervals; the judge "
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
