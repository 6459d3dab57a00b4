"""The data of the page's interactive picture: every cell at its numbers, and the papers' points beside it."""

from collections.abc import Iterable, Mapping
from typing import Any

from reports import overlay
from reports.artifacts import Artifacts
from reports.comparability import lower_is_better
from reports.frame import Facet, metrics
from reports.images import SHOWN, sprite
from reports.measured import estimate_of, measured
from reports.naming import counted_steps, display_name, series_label
from reports.tables import with_interval
from results.environments import result_key
from results.metrics import position
from results.schema import Row

AXES: dict[str, tuple[str, str, str, bool]] = {
    "throughput": ("images/s", "throughput_images_per_s", "", True),
    "latency": ("latency", "latency_s", "s", False),
    "steps": ("steps", "steps", "", False),
    "tokens": ("tokens per image", "tokens_processed", "", False),
    "memory": ("peak memory", "peak_bytes", "MB", False),
    "flops": ("FLOPs per image", "flops_per_image", "GFLOPs", False),
}
"""Switch -> (name, field, unit, whether more is better)."""
_SCALE = {"memory": 1e-6, "flops": 1e-9, "latency": 1e3}
_UNITS = {"latency": "ms"}
Numbers = list[float | None]


def axes() -> list[dict[str, Any]]:
    """What the switches say."""
    return [
        {"id": name, "name": title, "unit": _UNITS.get(name, unit), "more": more}
        for name, (title, _, unit, more) in AXES.items()
    ]


def facet_points(facet: Facet, beside: Mapping[str, Artifacts], owners: list[str]) -> dict[str, Any]:
    """A facet of one batch size; ``owners``: strategies by the number of their colour."""
    cells = [row for row in facet.cells if row.status == "ok"]
    names = metrics(facet.cells)
    return {
        "metrics": [{"name": name, "lower": lower_is_better(name)} for name in names],
        "cells": [_point(row, facet, beside, names, owners) for row in cells],
        "anchors": [
            {"label": row.label, "y": _qualities(row, names), "owner": owners.index(row.strategy)}
            for row in facet.anchors
        ],
        "published": [
            {"metric": name, "axis": axis, "x": one.x, "y": one.y, "name": one.name}
            | {"owner": owners.index(one.strategy)}
            for name in names
            for axis in ("throughput", "steps")
            for one in overlay.published_points(facet, name, axis == "throughput")
        ],
    }


def _point(
    row: Row, facet: Facet, beside: Mapping[str, Artifacts], names: Iterable[str], owners: list[str]
) -> dict[str, Any]:
    found = beside.get(result_key(row), Artifacts())
    shown = found.samples is not None
    return {
        "key": row.cell,
        "owner": owners.index(row.strategy),
        "series": series_label(row, facet.rows),
        "name": display_name(row, facet.rows),
        "variant": bool(row.options),
        "x": {axis: reading for axis in AXES if (reading := _reading(row, axis)) is not None},
        "y": _qualities(row, names),
        "texts": _texts(row),
        "sprite": sprite(found.samples) if found.samples is not None else None,
        "classes": [int(one) for one in found.classes[:SHOWN]] if shown and found.classes is not None else [],
    }


def _reading(row: Row, axis: str) -> Numbers | None:
    """[value, low, high] in the axis's unit."""
    field, scale = AXES[axis][1], _SCALE.get(axis, 1.0)
    if axis in ("throughput", "latency", "memory"):
        if measured(row, field) is None:
            return None
        estimate = estimate_of(row, field)
    else:
        value = counted_steps(row) if axis == "steps" else getattr(row, field)
        if value is None or row.acceptance is not None:
            return None
        estimate = (value, None, None)
    return [None if one is None else one * scale for one in estimate] if estimate[0] else None


def _qualities(row: Row, names: Iterable[str]) -> dict[str, Numbers]:
    return {name: list(estimate_of(row, name)) for name in names if measured(row, name) is not None}


def _texts(row: Row) -> list[tuple[str, str]]:
    """What stands in the card of a point: (name, text with interval)."""
    found = [(name, with_interval(*estimate_of(row, name))) for name in sorted(row.quality or {}, key=position)
             if measured(row, name) is not None]
    for axis, (title, _, unit, _) in AXES.items():
        reading = _reading(row, axis)
        if reading is None:
            continue
        counted = axis in ("steps", "tokens", "flops")
        text = f"{reading[0]:,.4g}" if counted else with_interval(*reading)
        found.append((title, f"{text} {_UNITS.get(axis, unit)}".strip()))
    if row.guidance is not None:
        found.append(("guidance", f"{row.guidance:g} {row.guidance_schedule}"))
    return found
