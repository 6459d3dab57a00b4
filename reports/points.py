"""The data of the page's interactive picture: every cell at its numbers, and the papers' points beside it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports import overlay
from reports.artifacts import Artifacts
from reports.class_names import named
from reports.comparability import lower_is_better
from reports.frame import Facet, metrics
from reports.images import SHOWN
from reports.measured import estimate_of, measured
from reports.naming import display_name, series_label
from reports.tables import with_interval
from results.environments import result_key
from results.schema import Row

Numbers = list[float | None]


@dataclass(frozen=True)
class Axis:
    """A switch: its name, the axis's title, the row's field in units of ``unit`` = 1 / ``scale``."""

    name: str
    title: str
    field: str
    unit: str = ""
    scale: float = 1.0
    more_is_better: bool = False
    counted: bool = False


AXES = {
    "throughput": Axis("images/s", "images/s", "throughput_images_per_s", more_is_better=True),
    "latency": Axis("latency", "latency", "latency_s", "ms", 1e3),
    "steps": Axis("steps", "steps", "steps", counted=True),
    "tokens": Axis("tokens", "tokens per image", "tokens_processed", counted=True),
    "memory": Axis("memory", "peak memory", "peak_bytes", "MB", 1e-6),
    "flops": Axis("FLOPs", "GFLOPs per image", "flops_per_image", scale=1e-9, counted=True),
}

SPEED = AXES["throughput"].title
"""What lies up where no cell has a quality."""


def axes() -> list[dict[str, Any]]:
    """What the switches say."""
    return [
        {"id": name, "name": one.name, "title": one.title, "unit": one.unit, "more": one.more_is_better}
        for name, one in AXES.items()
    ]


def facet_points(facet: Facet, beside: Mapping[str, Artifacts], owners: list[str]) -> dict[str, Any]:
    """A facet of one batch size; ``owners``: strategies by the number of their colour."""
    cells = [row for row in facet.cells if row.status == "ok"]
    names = [name for name in metrics(cells) if any(measured(row, name) is not None for row in cells)]
    shown = [{"name": name, "lower": lower_is_better(name)} for name in names]
    return {
        "metrics": shown or [{"name": SPEED, "lower": False}],
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
    row: Row, facet: Facet, beside: Mapping[str, Artifacts], names: Sequence[str], owners: list[str]
) -> dict[str, Any]:
    found = beside.get(result_key(row), Artifacts())
    shown = row.cell if found.samples is not None else None
    return {
        "key": row.cell,
        "owner": owners.index(row.strategy),
        "series": series_label(row, facet.rows),
        "family": series_label(row, facet.rows, but_for=("guidance",)),
        "name": display_name(row, facet.rows),
        "variant": bool(row.options),
        "x": {axis: reading for axis in AXES if (reading := _reading(row, axis)) is not None},
        "y": _qualities(row, names) if names else _speed(row),
        "texts": _texts(row),
        "sprite": shown,
        "classes": named(row, found.classes[:SHOWN]) if found.classes is not None else [],
    }


def _reading(row: Row, axis: str) -> Numbers | None:
    """[value, low, high] in the axis's unit; None where unknown, or from declared acceptance."""
    one = AXES[axis]
    if one.counted:
        value = getattr(row, one.field) if row.acceptance is None else None
        return [value * one.scale, None, None] if value else None
    if not measured(row, one.field):
        return None
    return [None if bound is None else bound * one.scale for bound in estimate_of(row, one.field)]


def _qualities(row: Row, names: Iterable[str]) -> dict[str, Numbers]:
    return {name: list(estimate_of(row, name)) for name in names if measured(row, name) is not None}


def _speed(row: Row) -> dict[str, Numbers]:
    reading = _reading(row, "throughput")
    return {} if reading is None else {SPEED: reading}


def _texts(row: Row) -> list[tuple[str, str]]:
    """What stands in the card of a point: (name, text with interval)."""
    found = [
        (name, with_interval(*estimate_of(row, name)))
        for name in metrics([row])
        if measured(row, name) is not None
    ]
    for axis, one in AXES.items():
        reading = _reading(row, axis)
        if reading is None:
            continue
        text = f"{reading[0]:,.4g}" if one.counted else with_interval(*reading)
        found.append((one.title, f"{text} {one.unit}".strip()))
    if row.guidance is not None:
        found.append(("guidance", f"{row.guidance:g} {row.guidance_schedule}"))
    return found
