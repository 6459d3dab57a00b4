"""From the ideal speed-up of a strategy to the real one, as factors that multiply up to it exactly.

The ideal is the ratio of steps to the raster strategy: a step costs the same however much it does. Each
factor then says what one more kind of cost makes of it, by the cost model's seconds (``cost`` artifacts) and,
for planning and detokenizing, by the measured phases. What these leave of the measured speed-up is named
unexplained; nothing is hidden in another factor.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.naming import counted_steps
from results.environments import result_key
from results.schema import Row

IDEAL, UNEXPLAINED = "steps", "unexplained"
BASE = "raster"
"""The strategy of one token a step."""
FACTORS = ("tokens processed", "guidance", "cache traffic", "attention", "launch and host", "detokenizing")
NOTE = (
    "Speed-up over the raster strategy at the same batch, in images/s. Steps: the ratio of step counts. The "
    "factors after it: what each kind of cost, added in this order, makes of the ratio of predicted times "
    "(planning and detokenizing: of the measured ones). Unexplained: measured speed-up over their product."
)


@dataclass(frozen=True)
class Waterfall:
    """Factors of one row's speed-up over ``base``; their product is ``speedup``."""

    row: Row
    base: Row
    factors: dict[str, float]

    @property
    def speedup(self) -> float:
        return math.prod(self.factors.values())


def base_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The raster row to compare with: same batch, guided or not alike, nearest in parameters and scale."""

    def distance(other: Row) -> tuple[float, float]:
        size = abs(math.log((other.parameters or 1) / (row.parameters or 1)))
        return size, abs((other.guidance or 0) - (row.guidance or 0))

    fitting = [
        other
        for other in rows
        if other.strategy == BASE
        and _measured(other)
        and other.batch == row.batch
        and (other.guidance is None) == (row.guidance is None)
    ]
    return min(fitting, key=distance, default=None)


def waterfall(row: Row, base: Row, costs: Mapping[str, Mapping[str, Any]]) -> Waterfall | None:
    """The factors of ``row`` over ``base``; None where a part of it is missing.

    costs: ``result_key`` of a row -> its prediction.
    """
    if not (_measured(row) and _measured(base) and result_key(row) in costs and result_key(base) in costs):
        return None
    if costs[result_key(row)]["card"] != costs[result_key(base)]["card"]:
        return None
    own, other = _levels(row, costs[result_key(row)]), _levels(base, costs[result_key(base)])
    ratios = [slow / fast for slow, fast in zip(other, own, strict=True)]
    factors = {IDEAL: ratios[0]}
    for name, before, after in zip(FACTORS, ratios, ratios[1:], strict=False):
        factors[name] = after / before
    factors[UNEXPLAINED] = _speed(row) / _speed(base) / ratios[-1]
    return Waterfall(row, base, factors)


def waterfalls(rows: Sequence[Row], costs: Mapping[str, Mapping[str, Any]]) -> list[Waterfall]:
    """Those of all rows but the raster ones, in their order."""
    found = []
    for row in rows:
        base = None if row.strategy == BASE else base_of(row, rows)
        drawn = None if base is None else waterfall(row, base, costs)
        if drawn is not None:
            found.append(drawn)
    return found


def _measured(row: Row) -> bool:
    return bool(row.status == "ok" and counted_steps(row) and row.throughput_images_per_s and row.batch)


def _speed(row: Row) -> float:
    return row.throughput_images_per_s or 0.0


def _levels(row: Row, cost: Mapping[str, Any]) -> list[float]:
    """What a batch costs as one kind after the other is counted: steps, then seconds."""
    phases = row.phases_s or {}
    seconds = [
        cost["tokens_s"],
        cost["guidance_s"],
        cost["cache_s"],
        cost["attention_s"],
        cost["launch_s"] + (phases.get("plan") or 0.0),
        phases.get("detokenize") or 0.0,
    ]
    return [float(row.steps or 0), *itertools.accumulate(seconds)]
