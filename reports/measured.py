"""A measured quantity of a row, by its field or metric name, with its interval and what pairs it."""

import math
from collections.abc import Iterable

import numpy as np

from reports.inference import Estimate
from results.fields import Measure
from results.metrics import kind_of
from results.schema import FIELDS, Row

THROUGHPUT = "throughput_images_per_s"
TIMES = {
    name: (one.interval or None, one.samples or None)
    for name, one in FIELDS.items()
    if isinstance(one, Measure) and one.compared in ("throughput", "latency")
}
"""Speeds and memory that are compared -> their interval and their repeats."""


COUNTS = tuple(name for name, one in FIELDS.items() if isinstance(one, Measure) and one.counted)
"""What is counted, hence exact."""


def counts_of(row: Row) -> dict[str, float | None]:
    """Every count of the row, and those of each network where there are several ("drafter forwards")."""
    counts: dict[str, float | None] = {name: getattr(row, name) for name in COUNTS}
    for use in row.networks or ():
        counts |= {f"{use['role']} {name}": value for name, value in use.items() if name in COUNTS}  # type: ignore[misc]
    return counts


def follows_tokens(count: str) -> bool:
    """Whether a count of ``counts_of`` depends on the tokens where a strategy decides while decoding."""
    one = FIELDS[count.rpartition(" ")[2]]
    return isinstance(one, Measure) and one.drawn


def measured(row: Row, name: str) -> float | None:
    """The value of a quantity of the row, None where it was not measured."""
    if name in TIMES:
        found: float | None = getattr(row, name)
        return found
    entry = row.lossiness_bits if name == "lossiness_bits" else (row.quality or {}).get(name)
    return entry["value"] if entry else None


def estimate_of(row: Row, name: str) -> Estimate:
    """(value, low, high) of a measured quantity of the row; ValueError where it has none."""
    value = measured(row, name)
    if value is None:
        raise ValueError(f"row of cell '{row.cell}' has no {name}")
    if name in TIMES:
        field = TIMES[name][0]
        low, high = (getattr(row, field) if field else None) or (None, None)
        return value, low, high
    entry = row.lossiness_bits if name == "lossiness_bits" else (row.quality or {})[name]
    assert entry is not None
    return value, entry["low"], entry["high"]


def best_of(rows: Iterable[Row], metric: str) -> Row:
    """The row with the best value of a quality metric, those without one last; the first of equals."""
    sign = 1.0 if kind_of(metric).better == "lower" else -1.0

    def badness(row: Row) -> float:
        value = measured(row, metric)
        return math.inf if value is None else sign * value

    return min(rows, key=badness)


def replicates_of(row: Row, metric: str) -> np.ndarray | None:
    """A quality metric with one group of images left out at a time [G]; None where the row has none."""
    found = (row.quality_replicates or {}).get(metric)
    return None if found is None else np.array(found)
