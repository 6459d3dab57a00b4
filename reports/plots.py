"""Curves of a facet: quality against throughput and against steps, memory against batch.

Every figure is drawn from one facet, states its settings in its caption, bounds every point by its 95 %
interval where there is one, and names its series beside them instead of in a legend.
"""

import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from reports import overlay, style
from reports.captions import note_under_axes, titled_panel
from reports.comparability import lower_is_better, quantity, require_comparable
from reports.frame import Facet
from reports.labels import Label, label_ends, place_labels
from reports.naming import counted_steps, series_label, steps_text
from reports.ticks import log_ticks, ticks_at
from results.schema import Row


@dataclass(frozen=True)
class Series:
    """The cells of one label, by rising steps; ``family``: the name without their guidance."""

    label: str
    family: str
    rows: tuple[Row, ...]

    @property
    def strategy(self) -> str:
        return self.rows[0].strategy

    @property
    def variant(self) -> bool:
        """Whether an option departs from the strategy's defaults: drawn hollow and dashed."""
        return bool(self.rows[0].options)


def series(facet: Facet) -> list[Series]:
    """The facet's ok cells as series, in the order of the tables."""
    groups: dict[str, list[Row]] = {}
    for row in facet.cells:
        if row.status == "ok":
            groups.setdefault(series_label(row, facet.rows), []).append(row)
    return [
        Series(
            label,
            series_label(rows[0], facet.rows, but_for=("guidance",)),
            tuple(sorted(rows, key=lambda row: row.steps or 0)),
        )
        for label, rows in groups.items()
    ]


def quality_against_throughput(facet: Facet, metric: str) -> Figure | None:
    """``metric`` over images/s at the row's batch, with the Pareto front; None without such cells."""
    measured = [
        row for row in facet.cells if row.status == "ok"
    ]  # others may not know where they would have run
    require_comparable(measured, quantity("throughput_images_per_s").keys, "throughput")
    return _trade_off(
        facet,
        metric,
        lambda row: (row.throughput_images_per_s, row.throughput_interval),
        "throughput (images/s, log scale)",
        fewer_is_better=False,
    )


def quality_against_steps(facet: Facet, metric: str) -> Figure | None:
    """``metric`` over decoding steps, with the Pareto front; None without such cells."""
    return _trade_off(
        facet, metric, lambda row: (counted_steps(row), None), "decoding steps (log scale)", True
    )


def memory_against_batch(facet: Facet) -> Figure | None:
    """Peak bytes over the loaded state against the batch size; None where none was measured."""
    lines, firsts = [], dict[str, Series]()
    for one in series(facet):
        firsts.setdefault(one.family, one)  # guidance changes no peak
    for one in firsts.values():
        row = one.rows[0]
        peaks = sorted((int(b), v / 1e6) for b, v in (row.peak_bytes_by_batch or {}).items() if v is not None)
        if peaks:
            steps = f", {steps_text(row)}" if len(one.rows) > 1 else ""
            lines.append((one, f"{one.family}{steps}", np.array(peaks, float)))
    if not lines:
        return None
    with plt.rc_context(style.rc()):
        batches = sorted({int(b) for _, _, points in lines for b in points[:, 0]})
        figure, axes = plt.subplots(figsize=(7.2 if len(batches) > 1 else 3.6, 4.6))
        for one, _, points in lines:
            axes.plot(points[:, 0], points[:, 1], **_line_style(one))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks_at(axes.xaxis, batches)
        log_ticks(axes.yaxis)
        axes.set_xlabel("batch size (log scale)")
        axes.set_ylabel("peak memory over the loaded state\n(MB, log scale; each point measured once)")
        titled_panel(axes, "Memory against batch")
        label_ends(axes, [(name, style.colour(one.strategy), points[-1]) for one, name, points in lines])
        note_under_axes(figure, facet)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> Path:
    """Writes NAME.png and the same in the other ``FORMATS``, closes the figure, returns the PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(style.rc()):
        box = _laid_out(figure)
        for form, metadata in FORMATS.items():
            figure.savefig(folder / f"{name}.{form}", bbox_inches=box, metadata=metadata)
    plt.close(figure)
    return folder / f"{name}.png"


def png_of(figure: Figure) -> bytes:
    """The figure as a PNG file; closes the figure."""
    out = io.BytesIO()
    with plt.rc_context(style.rc()):
        figure.savefig(out, format="png", bbox_inches=_laid_out(figure))
    plt.close(figure)
    return out.getvalue()


def _laid_out(figure: Figure) -> Bbox:
    """The figure's content with a margin, laid out once: else each format is laid out anew."""
    figure.draw_without_rendering()
    box = figure.get_tightbbox().padded(_MARGIN)
    figure.set_layout_engine(None)
    return box


def pareto_front(x: np.ndarray, y: np.ndarray, more_x: bool, more_y: bool) -> np.ndarray:
    """Indices by rising x of the points that no other point equals in both coordinates and beats in one."""
    gain = np.stack([x if more_x else -x, y if more_y else -y], axis=1)
    beaten = [bool(((gain >= point).all(axis=1) & (gain > point).any(axis=1)).any()) for point in gain]
    kept = np.flatnonzero(~np.array(beaten, dtype=bool))
    return kept[np.argsort(x[kept], kind="stable")]


FORMATS: dict[str, Any] = {"png": None, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Endings of a figure's files, and what they tell beside it: no date, so equal figures are equal files."""
_MARGIN = 0.12
"""Inches around a figure's content."""

Reading = tuple[float | None, Sequence[float] | None]


def _trade_off(
    facet: Facet, metric: str, read_x: Callable[[Row], Reading], x_label: str, fewer_is_better: bool
) -> Figure | None:
    drawn = [
        dataclasses.replace(one, rows=rows)
        for one in series(facet)
        if (rows := tuple(r for r in one.rows if _value(r, metric) is not None and read_x(r)[0] is not None))
    ]
    if not drawn:
        return None
    with plt.rc_context(style.rc()):
        room = _room(sum(len(one.rows) for one in drawn))
        figure, axes = plt.subplots(figsize=(7.2 * room, 4.8 * room))
        obstacles, points = [], []
        for one in drawn:
            x, x_error = _with_errors([read_x(row) for row in one.rows])
            y, y_error = _with_errors([_reading(row, metric) for row in one.rows])
            look = _line_style(one)
            axes.errorbar(x, y, xerr=x_error, yerr=y_error, elinewidth=1.1, capsize=2.5, **look)
            points.append(np.stack([x, y], axis=1))
            obstacles += [points[-1], *_bars(x, y, x_error, y_error)]
        published = overlay.published_points(facet, metric, over_throughput=not fewer_is_better)
        labels = [*_names(drawn, points, metric, count_steps=not fewer_is_better)]
        labels += overlay.draw(axes, published)
        labels.sort(key=lambda label: label.weight != "bold")
        cloud = np.concatenate(points)
        bounds = [bound for one in drawn for row in one.rows for bound in _reading(row, metric)[1] or ()]
        _scale(axes, np.array([*cloud, *((one.x, one.y) for one in published)]), bounds, facet, metric)
        _widen(axes, [bound for one in drawn for row in one.rows for bound in read_x(row)[1] or ()])
        if fewer_is_better:
            ticks_at(axes.xaxis, sorted({round(v) for v in cloud[:, 0]}))
        obstacles.append(_draw_front(axes, cloud, not fewer_is_better, not lower_is_better(metric)))
        anchors = _draw_anchors(axes, facet, metric)
        obstacles += anchors
        axes.set_xlabel(x_label)
        arrow = "lower is better" if lower_is_better(metric) else "higher is better"
        axes.set_ylabel(f"{metric} ({arrow})")
        titled_panel(axes, f"{metric} against {'steps' if fewer_is_better else 'throughput'}")
        figure.draw_without_rendering()
        place_labels(axes, labels, obstacles)
        intervals = "bars, and bands of the anchors" if anchors else "bars"
        note = f"{intervals}: 95 % intervals; grey line: Pareto front of the measured points"
        if len({one.family for one in drawn}) < len(drawn):
            note += "; curves of one name differ in guidance"
        note_under_axes(figure, facet, f"{note}; {overlay.NOTE}" if published else note)
    return figure


def _room(points: int) -> float:
    """How much longer the sides of a figure are that names so many points, that names keep clear of marks."""
    return min(max(1.0, math.sqrt(points / 15)), 1.4)


def _names(
    drawn: Sequence[Series], points: Sequence[np.ndarray], metric: str, count_steps: bool
) -> Iterator[Label]:
    """A name for each series at its worst point, and the steps of its others.

    Series of one label that differ in guidance alone share one name, and that of the series which bears it
    alone has its points told apart: by steps, or by guidance where each is but a point.
    """
    families: dict[str, list[tuple[Series, np.ndarray]]] = {}
    for one, places in zip(drawn, points, strict=True):
        families.setdefault(one.family, []).append((one, places))
    worse = 1 if lower_is_better(metric) else -1
    for family, members in families.items():
        bearer, places = max(members, key=lambda member: (worse * member[1][:, 1]).max())
        named = int(np.argmax(worse * places[:, 1]))
        colour = style.colour(bearer.strategy)
        name = family if len(members) > 1 else bearer.label
        for index, (row, (x, y)) in enumerate(zip(bearer.rows, places.tolist(), strict=True)):
            count = f"{steps_text(row)}" if count_steps else ""
            if index == named:
                yield Label(f"{name}, {count}" if count else name, x, y, colour)
            elif count:
                yield Label(count, x, y, colour, 8, "normal")
        if all(len(one.rows) == 1 for one, _ in members):
            for one, ((x, y),) in members:
                if one is not bearer:
                    scale = one.rows[0].guidance
                    text = "no guidance" if scale is None else f"guidance {scale:g}"
                    yield Label(text, x, y, colour, 8, "normal")


def _value(row: Row, metric: str) -> float | None:
    return (row.quality or {}).get(metric, {"value": None})["value"]


def _reading(row: Row, metric: str) -> Reading:
    entry = (row.quality or {})[metric]
    bounds = None if entry["low"] is None or entry["high"] is None else (entry["low"], entry["high"])
    return entry["value"], bounds


def _with_errors(readings: Sequence[Reading]) -> tuple[np.ndarray, np.ndarray]:
    """Values [n] and distances to their bounds [2, n], NaN where there are none."""
    values = np.array([value for value, _ in readings], float)
    bounds = np.array([b if b is not None else (np.nan, np.nan) for _, b in readings], float)
    return values, np.maximum(np.stack([values - bounds[:, 0], bounds[:, 1] - values]), 0)


def _bars(x: np.ndarray, y: np.ndarray, x_error: np.ndarray, y_error: np.ndarray) -> list[np.ndarray]:
    bars = []
    for i in range(len(x)):
        left, right = np.nan_to_num(x_error[:, i])
        down, up = np.nan_to_num(y_error[:, i])
        bars += [np.array([[x[i] - left, y[i]], [x[i] + right, y[i]]])]
        bars += [np.array([[x[i], y[i] - down], [x[i], y[i] + up]])]
    return bars


def _line_style(one: Series) -> dict[str, Any]:
    colour = style.colour(one.strategy)
    return {
        "color": colour,
        "marker": style.marker(one.strategy),
        "markerfacecolor": style.scheme().paper if one.variant else colour,
        "markeredgewidth": 1.4,
        "linestyle": "--" if one.variant else "-",
        "zorder": 4,
    }


def _widen(axes: Axes, bounds: Sequence[float]) -> None:
    """Room for intervals along a logarithmic x."""
    left, right = axes.get_xlim()
    within = [bound for bound in bounds if bound > 0]
    if within:
        axes.set_xlim(min(left, min(within) / 1.1), max(right, max(within) * 1.1))


def _scale(axes: Axes, cloud: np.ndarray, bounds: Sequence[float], facet: Facet, metric: str) -> None:
    """Logarithmic x with room for labels; y as ``scale_quality`` has it, anchors inside."""
    low, high = cloud[:, 0].min(), cloud[:, 0].max()
    room = max((high / low) ** 0.14, 1.25)
    axes.set_xscale("log", base=2 if low >= 1 and high <= 4096 else 10)
    axes.set_xlim(low / room, high * room)
    log_ticks(axes.xaxis)
    anchors = [value for row in facet.anchors if (value := _value(row, metric)) is not None]
    scale_quality(axes, [*cloud[:, 1], *anchors], bounds, metric)


def scale_quality(axes: Axes, values: Sequence[float], bounds: Sequence[float], metric: str) -> None:
    """Logarithmic y where distances span more than a factor of eight.

    ``bounds`` of intervals lie inside; on a logarithmic axis down to a third of the least value, since an
    interval that comes near nothing would leave no room for the others.
    """
    least, most = min(values), max([*values, *bounds])
    if lower_is_better(metric) and least > 0 and max(values) > 8 * least:
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
        least = max(min([*values, *bounds]), least / 3)
        axes.set_ylim(least / 1.2, most * 1.25)
        axes.set_ylabel(axes.get_ylabel() + ", log scale")
    else:
        least = min([*values, *bounds])
        margin = 0.08 * ((most - least) or abs(most) or 1)
        axes.set_ylim(least - margin, most + 1.4 * margin)


def _draw_front(axes: Axes, cloud: np.ndarray, more_x: bool, more_y: bool) -> np.ndarray:
    """The best quality to be had at each x or better, as a staircase; returns its corners [points, 2]."""
    front = cloud[pareto_front(cloud[:, 0], cloud[:, 1], more_x, more_y)]
    corners = [front[:1]]
    for start, end in pairwise(front):
        corners.append(np.array([(start[0], end[1]) if more_x else (end[0], start[1]), end]))
    staircase = np.concatenate(corners)
    axes.plot(*staircase.T, color=style.scheme().front, lw=3.0, solid_joinstyle="miter", zorder=1)
    return staircase


def _draw_anchors(axes: Axes, facet: Facet, metric: str) -> list[np.ndarray]:
    """A line per anchor across the figure, its interval as a band, its name right of the frame."""
    ends, lines = [], []
    left, right = axes.get_xlim()
    for row in facet.anchors:
        if _value(row, metric) is None:
            continue
        value, bounds = _reading(row, metric)
        height = float(value or 0)
        colour = style.colour(row.strategy)
        axes.axhline(height, color=colour, lw=1.1, ls=(0, (4, 3)), zorder=1)
        if bounds is not None:
            axes.axhspan(*bounds, color=colour, alpha=0.12, lw=0, zorder=0)
        ends.append((row.label, style.scheme().muted, np.array([right, height])))
        lines.append(np.array([[left, height], [right, height]]))
    label_ends(axes, ends, size=8.5, weight="normal")
    return lines
