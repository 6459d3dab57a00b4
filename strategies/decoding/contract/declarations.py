"""The part of the contract that needs no network: declarations, imports, plans."""

import ast
import inspect
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from pardec.errors import UserError
from strategies.decoding.base import Strategy
from strategies.decoding.contract.recording import Case
from strategies.decoding.contract.requirements import refused, require, require_equal
from strategies.decoding.plan import Plan
from strategies.decoding.streams import Streams

GRIDS = ((2, 2), (4, 4), (6, 6), (8, 8), (4, 6))
FOREIGN = frozenset({"harness", "reports", "results", "time", "os", "random", "subprocess", "threading"})
"""Modules that a strategy has no business with: devices, timers, files and seeds are the harness's."""


def check_declares_itself(subject: Case) -> None:
    """Name, title and paper are texts; options are frozen fields with defaults; exceptions have reasons."""
    strategy = subject.strategy
    for attribute in ("name", "title", "paper"):
        text = getattr(strategy, attribute, None)
        require(isinstance(text, str) and text, f"{attribute} is {text!r}, expected a text")
    require(is_dataclass(strategy), "the class is no dataclass")
    options = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    require_equal(type(strategy)(**options), strategy, "a strategy built from its own options")
    require_equal(hash(replace(strategy)), hash(strategy), "hash of an equal strategy")
    type(strategy)()  # raises where an option has no default
    exceptions = strategy.gradient_exceptions
    require("" not in exceptions.values(), f"gradient exceptions without a reason: {dict(exceptions)}")


def check_imports_nothing_foreign(subject: Case) -> None:
    """A strategy knows no harness, no clock, no file system."""
    source = Path(inspect.getfile(type(subject.strategy)))
    foreign = {name.split(".")[0] for name in imports_of(source)} & FOREIGN
    require(not foreign, f"{source.name} imports {', '.join(sorted(foreign))}")


def imports_of(source: Path) -> set[str]:
    """Dotted names of all modules that a file imports anywhere, relative imports aside."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def check_plans_are_valid(subject: Case) -> None:
    """Every allowed step count on several grids gives a whole plan; what is not allowed is a UserError."""
    strategy = subject.strategy
    tried = [grid for grid in GRIDS if _plannable(strategy, grid)]
    require(tried, f"no plan on any of the grids {GRIDS}")
    if strategy.decides_steps:
        _require_bounded_plans(strategy, tried)
        return
    for grid in tried:
        for steps in strategy.allowed_steps(grid):
            _require_whole_plan(strategy, grid, steps, seed=(steps * 2654435761) % 2**32)
    grid = tried[-1]
    allowed = strategy.allowed_steps(grid)
    require_equal(strategy.plan(grid, None, Streams(0, (0,))).steps, max(allowed), "steps of a default plan")
    for wrong in (-1, 0, allowed[0] - 1, allowed[-1] + 1):
        refused(partial(strategy.plan, grid, wrong, Streams(0, (0,))), f"steps = {wrong}")
    if not strategy.any_order:
        known = np.array([0])
        refused(
            lambda: strategy.plan(grid, None, Streams(0, (0,)), known=known), "a given token in a fixed order"
        )


def _plannable(strategy: Strategy, grid: tuple[int, int]) -> bool:
    try:
        strategy.plan(grid, None, Streams(0, (0,)))
    except UserError:
        return False
    return True


def _require_whole_plan(strategy: Strategy, grid: tuple[int, int], steps: int, seed: int) -> None:
    plan = strategy.plan(grid, steps, Streams(seed, (0, 9)))
    where = f"plan of {steps} steps on {grid[0]}x{grid[1]}"
    require_equal(plan.steps, steps, f"{where}: steps")
    require_equal(sum(plan.sizes or ()), plan.places, f"{where}: sum of its group sizes")
    if not plan.opened:
        written = np.unique(plan.step_of_position()).tolist()
        require_equal(written, list(range(steps)), f"{where}: steps that write")
    _require_clocks(plan, where)
    again = strategy.plan(grid, steps, Streams(seed, (9, 0)))
    flipped = again.order if len(again.order) == 1 else again.order[::-1]
    require(
        np.array_equal(flipped, plan.order), f"{where}: an image's order is not its own, or not repeatable"
    )


def _require_bounded_plans(strategy: Strategy, grids: list[tuple[int, int]]) -> None:
    """The plan of a strategy that decides its steps while decoding: it says so, and bounds them."""
    for grid in grids:
        where = f"plan on {grid[0]}x{grid[1]}"
        plan = strategy.plan(grid, None, Streams(0, (0, 9)))
        require(plan.steps is None, f"{where}: {plan.steps} steps, though they are decided while decoding")
        bound = plan.most_steps
        require(1 <= bound <= plan.places, f"{where}: at most {bound} steps for {plan.places} places")
        _require_clocks(plan, where)
    refused(partial(strategy.plan, grids[0], 1, Streams(0, (0,))), "steps = 1 of a method that decides them")


def _require_clocks(plan: Plan, where: str) -> None:
    for clock in (plan.progress, plan.count):
        require_equal(clock.shape, (plan.places,), f"{where}: shape of a clock")
    progress = plan.progress
    require(((progress >= 0) & (progress <= 1)).all(), f"{where}: progress leaves 0..1")
    require((np.diff(progress) >= 0).all(), f"{where}: progress runs backwards")
