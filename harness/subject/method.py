"""A method's card: what its class declares and its plans say, as plain data that stands beside a row.

A report reads it and so needs neither the strategy nor torch.
"""

import json
from pathlib import Path
from typing import Any

from harness.cell.cell import RANDOM, Cell
from harness.subject.prepare import Prepared
from harness.weights import zoo
from pardec.errors import UserError
from pardec.files import write_whole
from strategies.decoding import registry
from strategies.decoding.base import TRAITS, Strategy
from strategies.decoding.plan import Plan

GRIDS = ((16, 16), (24, 24))
"""Of 256 and 384 pixels: the papers' own."""


def method_card(prepared: Prepared) -> dict[str, Any]:
    """The card of the cell's strategy with its options. Step counts as ``steps_on``."""
    strategy = prepared.strategy
    plan = prepared.plan([0])
    caches = strategy.cache_shapes(prepared.config)
    return {
        "strategy": strategy.name,
        "title": strategy.title,
        "idea": registry.describe(strategy.name),
        "paper": strategy.paper,
        "base": strategy.base,
        "kind": kind_of(strategy, plan),
        "traits": {name: True for name in TRAITS if getattr(strategy, name) is True},
        "cache": {role: {"layers": layers, "slots": slots} for role, (layers, slots) in caches.items()},
        "steps": {f"{h}x{w}": steps_on(strategy, (h, w)) for h, w in GRIDS},
        "decides": what_decides(strategy, plan),
        "learning": learning_of(prepared.cell),
    }


def learning_of(cell: Cell) -> dict[str, Any] | None:
    """The curves of the run that the cell's network is of; None without a network of the zoo."""
    if cell.is_published or cell.checkpoint == RANDOM:
        return None
    return zoo.read_card(cell.network, cell.zoo).learning


def kind_of(strategy: Strategy[Any], plan: Plan) -> str:
    """What sort of decoder makes such plans."""
    if plan.codes_from:
        return "coarse labels, then all codes"
    if len(plan.maps) > 1:
        return "next-scale"
    if plan.sizes is None:
        return "speculative"
    if plan.opened:
        return "masked"
    height, width = GRIDS[0]
    alone = steps_on(strategy, GRIDS[0]) == [height * width] * 2
    return "one token a step" if alone else "groups planned beforehand"


def steps_on(strategy: Strategy[Any], grid: tuple[int, int]) -> list[int] | None:
    """[fewest, most] steps on a grid; None where the strategy can't decode it."""
    try:
        if strategy.decides_steps:
            return [1, strategy.bounded(grid).most_steps]
        allowed = strategy.allowed_steps(grid)
        return [allowed[0], allowed[-1]]
    except (UserError, ValueError, LookupError, ArithmeticError):
        return None


def what_decides(strategy: Strategy[Any], plan: Plan) -> str:
    """What sets the number of steps."""
    if strategy.decides_steps:
        return "the image: as many drafts as its test accepts"
    return "whoever asks" if len(strategy.allowed_steps(plan.grid)) > 1 else "the grid"


def store_method(prepared: Prepared, folder: Path) -> dict[str, str]:
    """Write the card among the artifacts of ``folder``; the row's artifact."""
    path = folder / "artifacts" / f"{prepared.cell.key}.method.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(method_card(prepared), ensure_ascii=False)
    write_whole(path, lambda file: file.write(text.encode()))
    return {"method": path.relative_to(folder).as_posix()}
