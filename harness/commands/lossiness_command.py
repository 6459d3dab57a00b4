"""pardec lossiness: what decoding in groups loses, exactly on tiny worlds, estimated on trained networks."""

import argparse
import re
from collections.abc import Sequence

from harness.commands.common import add_machine_flags, overrides
from harness.machine.terminal import progress_bar
from pardec.errors import UserError, unknown
from strategies.decoding import registry

SUMMARY = "bits that parallel decoding loses against one token at a time"
_NOTE = (
    "p: the network one token at a time in the plan's order; q: as decoded. KL(p || q) = correlation (the "
    "groups' conditional total correlation) + mismatch (other marginals when asked in a group). "
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "cell",
        metavar="CELL",
        nargs="?",
        help="a stored network, as for explain: strategy=lpd,steps=10,guidance=2; without it, tiny random "
        "networks whose images are enumerated",
    )
    command.add_argument("--strategies", nargs="+", metavar="NAME", help="enumerated ones (default: all)")
    command.add_argument(
        "--orders", nargs="*", metavar="RULE", help="raster, random, locality, halton (default: all that fit)"
    )
    command.add_argument(
        "--grid", nargs="+", metavar="HxW", default=["2x2", "2x3"], help="enumerated grids (default: 2x2 2x3)"
    )
    command.add_argument("--codes", type=int, default=3, help="codes of the enumerated worlds (default: 3)")
    command.add_argument("--steps", type=int, help="decoding steps (default: about half the places)")
    command.add_argument("--guidance", type=float, default=2.0, help="scale of the guided lines (default: 2)")
    command.add_argument(
        "--networks", type=int, default=5, help="random networks and orders averaged over (default: 5)"
    )
    command.add_argument("--images", type=int, default=200, help="images of a stored network (default: 200)")
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    for name in ("networks", "images"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: expected at least 1")
    return _enumerated(options) if options.cell is None else _stored(options)


def _enumerated(options: argparse.Namespace) -> int:
    import torch

    from harness.lossiness.exact import LARGEST
    from harness.lossiness.tables import EXACT_HEADINGS, exact_lines
    from harness.lossiness.worlds import World

    overrides(options)  # loads the plug-ins
    names = options.strategies or registry.names()
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
    import torch

    from harness.commands.explain_command import find_cell
    from harness.lossiness.conditionals import Undefined
    from harness.lossiness.estimate import estimate
    from harness.lossiness.tables import ESTIMATE_HEADINGS, estimate_cells
    from harness.lossiness.worlds import OWN, RULES
    from harness.subject.prepare import prepare
    from harness.subject.subject import load

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
    from harness.lossiness.worlds import RULES

    for name in names or ():
        if name not in RULES:
            raise unknown("order", name, RULES, "--orders")
    return None if names is None else list(names)


def _print(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from reports.tables import print_plain

    print_plain(headings, lines)
