"""Windows of drafts: what a larger one saves in steps and costs in time, and where drafts are accepted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.artifacts import Artifacts
from reports.captions import note_under, titled
from reports.frame import Facet
from reports.labels import Label, place_labels
from reports.naming import counted_steps, natural, series_label
from reports.pictures import grid_panels
from results.environments import result_key
from results.same_setting import is_without, setting_key
from results.schema import Row

Read = Callable[[Row], float | None]
_TIMED = (1, 64)
"""Batch sizes whose speed is drawn."""


@dataclass(frozen=True)
class Family:
    """Cells of one strategy that differ in their window alone, by rising window."""

    name: str
    rows: tuple[Row, ...]

    @property
    def colour(self) -> str:
        return style.colour(self.rows[0].strategy)


def families(facet: Facet) -> list[Family]:
    """Those of at least two windows, in the order of the tables."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in facet.cells:
        if row.status == "ok" and isinstance(
            row.options.get("window"), int
        ):  # "auto" is another at each batch
            key = (setting_key(row, ("options", "steps")), row.checkpoint, _others(row))
            groups.setdefault(key, []).append(row)
    found = []
    for rows in groups.values():
        if len({row.options["window"] for row in rows}) > 1:
            title, others = style.title(rows[0].strategy), _others(rows[0])
            ordered = tuple(sorted(rows, key=lambda row: row.options["window"]))
            found.append(Family(f"{title} ({others})" if others else title, ordered))
    return found


def of_drafts(facet: Facet) -> list[Family]:
    """Families that take fewer steps where the window is larger, as those with windows of drafts do."""
    return [one for one in families(facet) if (one.rows[-1].steps or 0) < (one.rows[0].steps or 0)]


def _others(row: Row) -> str:
    """The row's options but for the window, in words."""
    return ", ".join(f"{name} {value}" for name, value in sorted(row.options.items()) if name != "window")


def against_window(facet: Facet) -> Figure | None:
    """Steps of an image, and images/s at each batch, over the window; None without several windows."""
    found = families(facet)
    if not found:
        return None
    asked: dict[str, Read] = {"steps of an image": counted_steps}
    asked |= {f"images/s at batch {batch}": partial(_speed, batch=batch) for batch in _TIMED}
    panels = [(name, read, _lines(found, read)) for name, read in asked.items() if _lines(found, read)]
    if not panels:
        return None
    beside = [row for row in facet.cells if any(is_without(row, one.rows[0]) for one in found)]
    windows = sorted({row.options["window"] for one in found for row in one.rows})
    with plt.rc_context(style.rc()):
        figure, grid = plt.subplots(
            1, len(panels), figsize=(4.4 * len(panels) + 0.4, 4.2), squeeze=False, layout="constrained"
        )
        titled(figure, "Against the window")
        known = [
            [(row, value) for row in beside if (value := read(row)) is not None] for _, read, _ in panels
        ]
        for axes, (name, _, lines), levels in zip(grid.flat, panels, known, strict=True):
            _panel(axes, name, lines, windows)
            for row, value in levels:
                axes.axhline(value, color=style.colour(row.strategy), ls="--", lw=1)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # labels are placed on final axes
        for axes, (_, _, lines), levels in zip(grid.flat, panels, known, strict=True):
            names = [(one.name, *points[-1], one.colour) for one, points in lines]
            names += [
                (series_label(row, beside), windows[0], value, style.colour(row.strategy))
                for row, value in levels
            ]
            labels = [Label(name, float(x), float(y), colour, size=8.5) for name, x, y, colour in names]
            place_labels(axes, labels, [points for _, points in lines])
        note = "larger marks: the fewest steps, and the fastest window"
        if beside:
            note += "; dashed: the same network decoded without a window"
        note_under(figure, facet.caption, note)
    return figure


def _lines(found: Sequence[Family], read: Read) -> list[tuple[Family, np.ndarray]]:
    """Families of which something is known, and their points."""
    lines = [(one, _points(one, read)) for one in found]
    return [(one, points) for one, points in lines if len(points)]


def _points(family: Family, read: Read) -> np.ndarray:
    """(window, value) [n, 2] of the cells that have one."""
    found = [(row.options["window"], read(row)) for row in family.rows]
    return np.array([(window, value) for window, value in found if value is not None], dtype=float)


def _speed(row: Row, batch: int) -> float | None:
    return (row.throughput_by_batch or {}).get(str(batch))


def _panel(axes: Axes, name: str, lines: Sequence[tuple[Family, np.ndarray]], windows: Sequence[int]) -> None:
    steps = name.startswith("steps")
    for one, points in lines:
        axes.plot(*points.T, color=one.colour, marker=style.marker(one.rows[0].strategy), ms=4, lw=1.4)
        best = points[points[:, 1].argmin() if steps else points[:, 1].argmax()]
        axes.plot(*best, color=one.colour, marker=style.marker(one.rows[0].strategy), ms=9)
    axes.set_xscale("log", base=2)
    axes.set_xticks(windows, labels=[str(window) for window in windows])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("window (log scale)")
    axes.set_ylabel(name)


def maps_of(facet: Facet, artifacts: Mapping[str, Artifacts]) -> list[tuple[Row, np.ndarray, np.ndarray]]:
    """Cells and how often drafts of each position were tested and accepted, where content decided that."""
    found = [
        (row, a.drafts_tested, a.drafts_accepted)
        for row in facet.cells
        if (a := artifacts.get(result_key(row)))
        and row.acceptance is None
        and a.drafts_tested is not None
        and a.drafts_accepted is not None
        and a.drafts_tested.shape == a.drafts_accepted.shape
    ]
    return sorted(
        found, key=lambda one: (style.rank(one[0].strategy), natural(str(one[0].options.get("window"))))
    )


def acceptance_maps(facet: Facet, artifacts: Mapping[str, Artifacts]) -> Figure | None:
    """Share of passed tests by position of the grid, a panel per cell; None where no drafts were tested."""
    panels = maps_of(facet, artifacts)
    if not panels:
        return None
    with plt.rc_context(style.rc() | {"axes.grid": False}):
        figure, grid = grid_panels(len(panels))
        for axes, (row, tested, accepted) in zip(grid.flat, panels, strict=False):
            share = np.where(tested > 0, accepted / np.maximum(tested, 1), np.nan)
            axes.set_axis_off()
            image = axes.imshow(share, cmap=style.ORDER_MAP, vmin=0, vmax=1, interpolation="nearest")
            name = "\n".join(style.wrapped(series_label(row, facet.rows), 22))
            rate = accepted.sum() / max(tested.sum(), 1)
            axes.set_title(
                f"{name}\n{rate:.2f} accepted",
                color=style.lettering(style.colour(row.strategy)),
                fontsize=9,
                loc="center",
            )
        bar = figure.colorbar(image, ax=grid[:, -1], ticks=[0, 0.5, 1], fraction=0.08, pad=0.06)
        bar.outline.set_visible(False)
        bar.set_label("share of tests passed", fontsize=9)
        titled(figure, "Where drafts are accepted")
        note_under(figure, facet.caption, "empty: positions whose drafts are never tested")
    return figure
