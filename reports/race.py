"""The race: cells decode the same image beside each other, each at its measured speed, from stored traces.

Every place shows its part of the finished image from the step on that wrote its token. A step takes its
share of the time measured for one image; that of planning and of detokenizing, as the row's phases have it,
lies before the first and behind the last.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reports.artifacts import Artifacts
from reports.class_names import named
from reports.comparability import lower_is_better
from reports.frame import Facet, metrics
from reports.images import SHOWN
from reports.measured import measured
from reports.naming import display_name
from results.environments import result_key
from results.schema import Row

_MOST_LANES = 12
"""Beyond so many cells one of each label races first."""
_MOST_LOST = 2_000
"""Lost draws of an image that the page holds."""


def lanes(facet: Facet, beside: Mapping[str, Artifacts], owners: list[str]) -> list[dict[str, Any]]:
    """A lane for every cell with a time, samples and at least one image's order."""
    found: list[tuple[Row, dict[str, Any]]] = []
    for row in facet.cells:
        stored = beside.get(result_key(row))
        if row.status == "ok" and stored is not None and row.throughput_images_per_s:
            lane = _lane(row, stored)
            if lane is not None:
                found.append((row, lane))
    first = _best([row for row, _ in found])
    return [
        {
            "name": row.label,
            "setting": display_name(row, facet.cells).removeprefix(f"{row.label}, "),
            "owner": owners.index(row.strategy),
            "first": row.cell in first,
            **lane,
        }
        for row, lane in found
    ]


def _best(rows: Sequence[Row]) -> set[str]:
    """Keys of the cells that race first: of each label that of the best quality, by the first metric."""
    if len(rows) <= _MOST_LANES:
        return {row.cell for row in rows}
    metric = next(iter(metrics(rows)), None)
    sign = 1 if metric is None or lower_is_better(metric) else -1
    best: dict[str, Row] = {}
    for row in rows:
        rival = best.setdefault(row.label, row)
        value, other = (None if metric is None else measured(one, metric) for one in (row, rival))
        if value is not None and (other is None or sign * value < sign * other):
            best[row.label] = row
    return {row.cell for row in best.values()}


def lanes_exist(facet: Facet, beside: Mapping[str, Artifacts]) -> bool:
    """Whether ``lanes`` has any."""
    stored = [beside.get(result_key(row)) for row in facet.cells if row.throughput_images_per_s]
    return any(
        one is not None and one.samples is not None and one.classes is not None and _steps(one) is not None
        for one in stored
    )


def _lane(row: Row, stored: Artifacts) -> dict[str, Any] | None:
    steps = _steps(stored)
    if steps is None or stored.samples is None or stored.classes is None:
        return None
    images = min(len(steps), len(stored.samples), len(stored.classes), SHOWN)
    steps = np.maximum(steps[:images], 0).round().astype(int)
    return {
        "grid": steps.shape[1:],
        "classes": named(row, stored.classes[:images]),
        "steps": steps.reshape(images, -1).tolist(),
        "lost": _lost(stored, images, steps[0].size),
        "count": [max(int(one.max()) + 1, row.steps_least or 0) for one in steps],
        "seconds": _seconds(row),
        "share": _shares(row),
        "sprite": row.cell,
        "columns": min(len(stored.samples), SHOWN),
    }


def _steps(stored: Artifacts) -> np.ndarray | None:
    """[n, h, w]; of results from before traces of several images, that of the first."""
    if stored.steps_of_images is not None:
        return stored.steps_of_images
    return None if stored.step_of_position is None else stored.step_of_position[None]


def _lost(stored: Artifacts, images: int, places: int) -> list[list[int]]:
    """[step, position, step, position, ...] of every image."""
    found: list[list[int]] = [[] for _ in range(images)]
    if stored.lost_draws is not None:
        for image, step, position in stored.lost_draws.astype(int).tolist():
            if 0 <= image < images and 0 <= position < places and len(found[image]) < 2 * _MOST_LOST:
                found[image] += [step, position]
    return found


def _seconds(row: Row) -> dict[str, float]:
    """Seconds of one image by how it is timed: alone, and as part of a batch."""
    found = {f"batch {row.batch}": 1.0 / (row.throughput_images_per_s or 1.0)}
    return ({"alone": row.latency_s} if row.latency_s else {}) | found


def _shares(row: Row) -> list[float]:
    """Shares of the time before the first and behind the last step."""
    phases = row.phases_s or {}
    total = phases.get("total")
    if not total:
        return [0.0, 0.0]
    return [min(0.9, (phases.get(name) or 0.0) / total) for name in ("plan", "detokenize")]
