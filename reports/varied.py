"""One setting of a method varied, all else equal: a window, a number of clusters, an order over steps."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.captions import note_under, titled
from reports.frame import Facet, metrics
from reports.labels import Label, place_labels
from reports.measured import estimate_of, measured
from reports.naming import counted_steps, counted_text, series_label
from results.same_setting import is_without, setting_key
from results.schema import Row

_LEAST = 3
"""Values that make a curve."""
_COLUMNS = 3
STEPS = "steps"
_STROKES = ("-", ":", "--", "-.")
"""Of lines of one strategy, one after the other."""


@dataclass(frozen=True)
class Line:
    """Cells that differ in one setting, by its rising values."""

    name: str
    rows: tuple[Row, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Lines over the same setting; ``beside``: the same network decoded without it, one value."""

    title: str
    setting: str
    lines: tuple[Line, ...]
    beside: tuple[Row, ...] = ()


def panels(facet: Facet, metric: str) -> list[Panel]:
    """A panel for each option of a strategy that takes several values, and for each network that several
    strategies or orders decode at several numbers of steps."""
    cells = [row for row in facet.cells if row.status == "ok" and measured(row, metric) is not None]
    return [*_of_options(cells), *_of_steps(cells)]


def shows(facet: Facet) -> bool:
    """Whether a setting is varied in the facet's cells."""
    return any(panels(facet, metric) for metric in metrics(facet.cells)[:1])


def figure(facet: Facet) -> Figure | None:
    """The facet's first metric over each varied setting; None where none is varied."""
    metric = next(iter(metrics(facet.cells)), None)
    found = panels(facet, metric) if metric else []
    if not found:
        return None
    columns = min(len(found), _COLUMNS)
    lines = math.ceil(len(found) / columns)
    with plt.rc_context(style.rc()):
        drawn, grid = plt.subplots(
            lines, columns, figsize=(4.4 * columns + 0.4, 3.9 * lines), squeeze=False, layout="constrained"
        )
        titled(drawn, "One setting varied")
        for axes in grid.flat[len(found) :]:
            axes.set_axis_off()
        for axes, panel in zip(grid.flat, found, strict=False):
            _draw(axes, panel, str(metric))
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")  # labels are placed on final axes
        for axes, panel in zip(grid.flat, found, strict=False):
            _name_lines(axes, panel, str(metric))
        note_under(
            drawn,
            facet.caption,
            "bars: 95 % intervals over images; dashed: the same network decoded without the setting",
        )
    return drawn


def _of_options(cells: Sequence[Row]) -> list[Panel]:
    groups: dict[tuple[str, str], dict[float, Row]] = {}
    for row in cells:
        for option, value in row.options.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                groups.setdefault((option, _but_for(row, option)), {})[float(value)] = row
    found = []
    for (option, _), at in groups.items():
        if len(at) >= _LEAST:
            line = _line(style.title(next(iter(at.values())).strategy), at)
            beside = tuple(row for row in cells if is_without(row, line.rows[0]))
            found.append(Panel(f"{line.name}: {option}", option, (line,), beside))
    return found


def _but_for(row: Row, option: str) -> str:
    """All that a row is asked for but the option and what follows from it: the steps, and the network where
    its name tells the option's value."""
    others = {name: value for name, value in row.options.items() if name != option}
    network = (row.network or "").removesuffix(f"-{option}{row.options[option]}")
    asked = setting_key(row, ("options", "steps", "network"))
    return json.dumps([asked, others, network], sort_keys=True)


def _of_steps(cells: Sequence[Row]) -> list[Panel]:
    """Networks that several series of ``cells`` decode, each at several numbers of steps."""
    by_network: dict[tuple[str, str], dict[str, dict[float, Row]]] = {}
    for row in cells:
        steps = counted_steps(row)
        if row.checkpoint and steps is not None:
            lines = by_network.setdefault((row.checkpoint, row.network or ""), {})
            lines.setdefault(setting_key(row, ("steps",)), {})[float(steps)] = row
    found = []
    for (_, network), lines in by_network.items():
        curves = [
            _line(series_label(next(iter(at.values())), cells), at)
            for at in lines.values()
            if len(at) >= _LEAST
        ]
        if len({setting_key(line.rows[0], ("steps", "guidance")) for line in curves}) > 1:
            found.append(Panel(f"One network ({network}), several orders", STEPS, tuple(curves)))
    return found


def _line(name: str, at: Mapping[float, Row]) -> Line:
    values = tuple(sorted(at))
    return Line(name, tuple(at[value] for value in values), values)


def _draw(axes: Axes, panel: Panel, metric: str) -> None:
    drawn: list[str] = []
    for line in panel.lines:
        points, bars = _measured(line, metric)
        strategy = line.rows[0].strategy
        axes.errorbar(
            points[:, 0],
            points[:, 1],
            yerr=bars,
            color=style.colour(strategy),
            marker=style.marker(strategy),
            linestyle=_STROKES[drawn.count(strategy) % len(_STROKES)],
            capsize=2,
            lw=1.4,
        )
        drawn.append(strategy)
    for row in panel.beside:
        axes.axhline(estimate_of(row, metric)[0], color=style.colour(row.strategy), ls="--", lw=1)
    values = sorted({value for line in panel.lines for value in line.values})
    logarithmic = values[0] > 0 and values[-1] >= 4 * values[0]
    if logarithmic:
        axes.set_xscale("log", base=2)
    axes.set_xticks(values, labels=_told(panel, values))
    axes.minorticks_off()
    axes.set_xlabel(f"{panel.setting} (log scale)" if logarithmic else panel.setting)
    axes.set_ylabel(metric)
    axes.set_title(panel.title, fontsize=10)


def _told(panel: Panel, values: Sequence[float]) -> list[str]:
    """Tick labels: the values, with the steps that each leads to where these differ."""
    texts = [f"{value:g}" for value in values]
    steps = {
        value: row.steps for line in panel.lines for value, row in zip(line.values, line.rows, strict=True)
    }
    if panel.setting == STEPS or len({*steps.values()}) == 1 or None in steps.values():
        return texts
    return [
        f"{text}\n{counted_text(steps[value] or 0)} st." for text, value in zip(texts, values, strict=True)
    ]


def _measured(line: Line, metric: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(value, metric) [n, 2], and how far intervals reach below and above [2, n]; None without intervals."""
    known = [estimate_of(row, metric) for row in line.rows]
    points = np.array([(value, at) for value, (at, _, _) in zip(line.values, known, strict=True)])
    if any(low is None or high is None for _, low, high in known):
        return points, None
    bars = np.array(
        [
            (max(at - low, 0.0), max(high - at, 0.0))
            for at, low, high in known
            if low is not None and high is not None
        ]
    )
    return points, bars.T


def _name_lines(axes: Axes, panel: Panel, metric: str) -> None:
    lines = [_measured(line, metric)[0] for line in panel.lines]
    labels = []
    if len(lines) > 1:
        for line, points in zip(panel.lines, lines, strict=True):
            x, y = map(float, points[-1])
            labels.append(Label(line.name, x, y, style.colour(line.rows[0].strategy), size=8.5))
    right = max(value for line in panel.lines for value in line.values)
    labels += [
        Label(
            series_label(row, panel.beside),
            right,
            estimate_of(row, metric)[0],
            style.colour(row.strategy),
            size=8.5,
        )
        for row in panel.beside
    ]
    place_labels(axes, labels, lines)
