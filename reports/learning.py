"""Quality against training images: runs as their cards tell them, and cells of the networks of several marks.

The worker stores the card's curves beside the row, so a report needs no network. Cells are taken at the steps
of their strategy's paper (``reports.relations``), each network at the guidance that suits it best.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports import style
from reports.artifacts import Artifacts
from reports.comparability import lower_is_better
from reports.differences import differences
from reports.frame import Facet, metrics
from reports.measured import estimate_of, measured
from reports.naming import steps_text
from reports.relations import steps_of
from reports.tables import with_interval
from reports.training_noise import TrainingNoise
from results.annotations import fault
from results.environments import result_key
from results.same_setting import value_of
from results.schema import RANDOM_WEIGHTS, Row

SWEEP = "pardec sweep learning"
"""Measures the networks of every mark that stands."""
_NONE = Artifacts()
_POINTS = 100_000
Curve = NDArray[np.float64]
"""(images, nats a token) [n, 2]"""
Stored = Mapping[str, Mapping[str, Any]]
"""The methods' cards by ``result_key``."""


@dataclass(frozen=True)
class Run:
    """How one network learned. marks: validation loss of each mark's network; taught: mean training loss."""

    strategy: str
    marks: Curve
    taught: Curve


@dataclass(frozen=True)
class Series:
    """Cells of one setting, decoded by the networks of several marks, by rising training images."""

    name: str
    rows: tuple[Row, ...]

    @property
    def strategy(self) -> str:
        return self.rows[0].strategy

    @property
    def images(self) -> list[int]:
        """Images that the networks learned from."""
        return [row.training_images or 0 for row in self.rows]


def runs(facet: Facet, stored: Stored) -> list[Run]:
    """A run for every strategy with a network of its own, of the least training seed the longest."""
    found: dict[str, tuple[tuple[int, float], Run]] = {}
    for row in facet.cells:
        run = _run(stored.get(result_key(row), {}).get("learning"))
        if run is None:
            continue
        rank = (row.training_seed or 0, -float(run.marks[:, 0].max(initial=0)))
        if run.strategy not in found or rank < found[run.strategy][0]:
            found[run.strategy] = rank, run
    return [found[name][1] for name in sorted(found, key=style.rank)]


def _run(learning: Any) -> Run | None:
    """What a card says, None where it says nothing that can be drawn."""
    if not isinstance(learning, dict) or not isinstance(learning.get("strategy"), str):
        return None
    told = learning.get("marks")
    marks = [
        [one.get("images"), one.get("validation_loss")]
        for one in (told if isinstance(told, list) else [])
        if isinstance(one, dict)
    ]
    curves = [_curve(points) for points in (marks, learning.get("train_loss"))]
    return Run(learning["strategy"], *curves) if len(curves[0]) else None


def _curve(points: Any) -> Curve:
    whole = isinstance(points, list) and len(points) <= _POINTS
    if not whole or not all(
        isinstance(one, list) and len(one) == 2 and all(fault(x, float) is None and x > 0 for x in one)
        for one in points
    ):
        points = []
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def series(facet: Facet, metric: str) -> list[Series]:
    """Cells whose network says how many images it learned from, by setting; of guidance scales the best."""
    sign = 1.0 if lower_is_better(metric) else -1.0
    groups: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in facet.cells:
        if row.status != "ok" or row.training_images is None or measured(row, metric) is None:
            continue
        steps, paper = value_of(row, "steps"), steps_of(row.strategy)
        if row.training_seed or (paper is not None and steps != paper):
            continue
        best = groups.setdefault((row.strategy, json.dumps(row.options, sort_keys=True), steps), {})
        other = best.get(row.training_images)
        if other is None or sign * estimate_of(row, metric)[0] < sign * estimate_of(other, metric)[0]:
            best[row.training_images] = row
    found = [tuple(row for _, row in sorted(best.items())) for best in groups.values()]
    ordered = sorted(found, key=lambda rows: (style.rank(rows[0].strategy), rows[0].label))
    return [Series(f"{rows[-1].label}, {steps_text(rows[-1])}", rows) for rows in ordered]


def sentences(facet: Facet) -> list[str]:
    """How far each strategy is from the first one at the first and the last mark that both have; of the first
    its own quality. Nothing for a strategy of one mark."""
    metric = next(iter(metrics(facet.cells)), None)
    if metric is None:
        return []
    every = series(facet, metric)
    found = []
    for one in every:
        if one is not every[0] and (told := _against(every[0], one, metric)) is not None:
            found.append(told)
        elif len(one.rows) > 1:
            ends = [with_interval(*estimate_of(row, metric)) for row in (one.rows[0], one.rows[-1])]
            found.append(f"{one.name}: {metric} went from {ends[0]} to {ends[1]} {_between(one.images)}.")
    return found


def _against(base: Series, one: Series, metric: str) -> str | None:
    """The distance of a strategy to the first, at the ends of what both have learned from."""
    theirs = dict(zip(base.images, base.rows, strict=True))
    both = [
        (theirs[images], row) for images, row in zip(one.images, one.rows, strict=True) if images in theirs
    ]
    if len(both) < 2:
        return None
    told = []
    for ours, row in (both[0], both[-1]):
        changes, _ = differences(ours, row, _NONE, _NONE, TrainingNoise())
        change = next((each for each in changes if each.name == metric), None)
        if change is None:
            return None
        told.append(with_interval(change.change, change.low, change.high))
    span = _between([row.training_images or 0 for _, row in both])
    return f"{one.name}: the difference of {metric} to {base.name} went from {told[0]} to {told[1]} {span}."


def _between(images: Sequence[int]) -> str:
    return f"between {images[0]:,} and {images[-1]:,} training images"


def is_taught(facet: Facet) -> bool:
    """Whether something decodes a trained network of the controlled tier, which has a curve to ask for."""
    return any(
        row.tier == "controlled" and row.status == "ok" and row.checkpoint != RANDOM_WEIGHTS
        for row in facet.cells
    )


def lacking(facet: Facet, stored: Stored) -> str | None:
    """What is missing for the whole picture, in one line before the command that gives it."""
    metric = next(iter(metrics(facet.cells)), None)
    marks = {one.name: len(one.rows) for one in series(facet, metric)} if metric else {}
    if any(count > 1 for count in marks.values()):
        return None
    if marks:
        return "Every network here is of one mark; the quality of those of other marks comes from"
    if runs(facet, stored):
        return "No row here is of a known number of training images at its paper's steps; such rows come from"
    return "These rows don't say how their networks learned; rows that do come from"
