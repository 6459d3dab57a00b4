"""Predicted cost beside measured cost: tables and pictures from the rows and their ``cost`` artifacts."""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from reports import style
from reports.captions import note_under_axes, titled_panel
from reports.frame import Facet
from reports.naming import counted_text, series_label, steps_text
from reports.tables import DASH, Column, Entry, ReportTable
from reports.ticks import log_ticks
from reports.waterfall import FACTORS, IDEAL, UNEXPLAINED, Waterfall, waterfalls
from results.environments import result_key
from results.schema import Row

Costs = Mapping[str, Mapping[str, Any]]
"""``result_key`` of a row -> what the cost model predicted for it."""
PUBLISHED_NOTE = (
    "Predicted from the papers' settings and the data sheets' rates (harness/machine/cards.toml; launch "
    "times are unchecked), without detokenizing. Where the published run is slower, the rest went into what "
    "is neither work nor counted launches: other code, a slower host, a padded cache. A ratio that is nearly "
    "the same for all rows of batch 1 is the launch time's."
)


@dataclass(frozen=True)
class CheckedPrediction:
    """Predicted over measured, by quantity."""

    row: Row
    cost: Mapping[str, Any]

    @property
    def ratios(self) -> dict[str, float]:
        row, cost, found = self.row, self.cost, {}
        if row.throughput_images_per_s:
            found["throughput"] = cost["throughput_images_per_s"] / row.throughput_images_per_s
        if row.latency_s:
            found["latency"] = cost["latency_s"] / row.latency_s
        if row.peak_bytes is not None and row.weight_bytes:
            found["peak memory"] = _predicted_peak(cost) / (row.weight_bytes + row.peak_bytes)
        return found


def checked_predictions(rows: Iterable[Row], costs: Costs) -> list[CheckedPrediction]:
    """The rows that were measured and predicted."""
    return [
        CheckedPrediction(row, costs[result_key(row)])
        for row in rows
        if row.status == "ok" and result_key(row) in costs
    ]


def error_line(compared: Sequence[CheckedPrediction]) -> str:
    """Median and worst ratio of predicted to measured, for each quantity."""
    parts = []
    for name in ("throughput", "latency", "peak memory"):
        ratios = [ratio for one in compared if (ratio := one.ratios.get(name))]
        if ratios:
            worst = max(ratios, key=lambda ratio: abs(math.log(ratio)))
            parts.append(f"{name} {statistics.median(ratios):.3g} (worst {worst:.3g})")
    return f"predicted over measured, median of {len(compared)} cells: {', '.join(parts)}"


def prediction_table(facet: Facet, costs: Costs) -> ReportTable | None:
    """Predicted, measured and their ratio; None where nothing was predicted."""
    compared = {result_key(one.row): one for one in checked_predictions(facet.rows, costs)}
    if not compared:
        return None
    rows = tuple(row for row in facet.rows if result_key(row) in compared)

    def columns_of(title: str, ours: str, theirs: str, name: str) -> list[Column]:
        def predicted(row: Row) -> Entry:
            return _number(_quantity(compared[result_key(row)], ours))

        def measured(row: Row) -> Entry:
            return _number(_quantity(compared[result_key(row)], theirs))

        def ratio(row: Row) -> Entry:
            return _number(compared[result_key(row)].ratios.get(name))

        return [Column(f"{title} predicted", predicted), Column("measured", measured), Column("ratio", ratio)]

    columns = [
        Column("strategy", lambda row: Entry(series_label(row, facet.rows)), numeric=False),
        Column("steps", lambda row: Entry(DASH if row.steps is None else counted_text(row.steps), row.steps)),
        *columns_of("images/s", "speed", "measured speed", "throughput"),
        *columns_of("latency ms", "latency", "measured latency", "latency"),
        *columns_of("peak MB", "peak", "measured peak", "peak memory"),
    ]
    entries = tuple(tuple(column.entry(row) for column in columns) for row in rows)
    title = f"Predicted and measured ({error_line(list(compared.values()))})"
    return ReportTable(title, tuple(columns), rows, entries)


def _quantity(one: CheckedPrediction, name: str) -> float | None:
    row, cost = one.row, one.cost
    peak = None
    if row.peak_bytes is not None and row.weight_bytes is not None:
        peak = (row.weight_bytes + row.peak_bytes) / 1e6
    values: dict[str, float | None] = {
        "speed": cost["throughput_images_per_s"],
        "measured speed": row.throughput_images_per_s,
        "latency": 1e3 * cost["latency_s"],
        "measured latency": None if row.latency_s is None else 1e3 * row.latency_s,
        "peak": _predicted_peak(cost) / 1e6,
        "measured peak": peak,
    }
    return values[name]


def _predicted_peak(cost: Mapping[str, Any]) -> float:
    return float(cost["peak_bytes"])


def waterfall_table(facet: Facet, costs: Costs) -> ReportTable | None:
    """The factors of each row's speed-up; None where there are none."""
    drawn = {result_key(one.row): one for one in waterfalls(facet.cells, costs)}
    if not drawn:
        return None
    rows = tuple(row for row in facet.rows if result_key(row) in drawn)

    def factor(name: str) -> Column:
        return Column(name, lambda row: _number(drawn[result_key(row)].factors[name]))

    columns = [
        Column("strategy", lambda row: Entry(series_label(row, facet.rows)), numeric=False),
        Column("steps", lambda row: Entry(DASH if row.steps is None else counted_text(row.steps), row.steps)),
        Column("over", lambda row: Entry(drawn[result_key(row)].base.label), numeric=False),
        factor(IDEAL),
        *(factor(name) for name in FACTORS),
        factor(UNEXPLAINED),
        Column("speed-up", lambda row: _number(drawn[result_key(row)].speedup)),
    ]
    entries = tuple(tuple(column.entry(row) for column in columns) for row in rows)
    return ReportTable("Speed-up over raster, factor by factor", tuple(columns), rows, entries)


def predicted_against_measured(facet: Facet, costs: Costs) -> Figure | None:
    """Predicted over measured images/s of every cell, with the line on which they are equal."""
    compared = [one for one in checked_predictions(facet.cells, costs) if "throughput" in one.ratios]
    if not compared:
        return None
    with plt.rc_context(style.rc()):
        figure, axes = plt.subplots(figsize=(5.4, 4.8))
        named: set[str] = set()
        for one in compared:
            strategy = one.row.strategy
            axes.plot(
                one.row.throughput_images_per_s or math.nan,
                one.cost["throughput_images_per_s"],
                color=style.colour(strategy),
                marker=style.marker(strategy),
                linestyle="none",
                label=None if strategy in named else style.title(strategy),
            )
            named.add(strategy)
        ends = [*axes.get_xlim(), *axes.get_ylim()]
        low, high = min(end for end in ends if end > 0) * 0.9, max(ends) * 1.1
        axes.plot([low, high], [low, high], color=style.scheme().front, zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        log_ticks(axes.xaxis)
        log_ticks(axes.yaxis)
        axes.set_xlabel("measured throughput (images/s, log scale)")
        axes.set_ylabel("predicted throughput (images/s, log scale)")
        titled_panel(axes, "Predicted against measured")
        axes.legend(frameon=False)
        note_under_axes(figure, facet, error_line(compared))
    return figure


LEAST_SPAN = 1.5
"""Least ratio of the highest to the lowest level of a waterfall's axis."""


def waterfall_figure(facet: Facet, costs: Costs) -> Figure | None:
    """For the fewest steps of each label, how its ideal speed-up becomes the measured one."""
    chosen: dict[str, Waterfall] = {}
    for one in waterfalls(facet.cells, costs):
        name = one.row.label
        if name not in chosen or (one.row.steps or 0) < (chosen[name].row.steps or 0):
            chosen[name] = one
    if not chosen:
        return None
    with plt.rc_context(style.rc()):
        figure, grid = plt.subplots(
            len(chosen), 1, figsize=(7.6, 1.9 * len(chosen)), squeeze=False, layout="constrained"
        )
        for axes, (name, one) in zip(grid[:, 0], chosen.items(), strict=True):
            _draw_steps(axes, one)
            axes.set_title(f"{name}, {steps_text(one.row)}: {one.speedup:.3g} times raster")
        note_under_axes(figure, facet)
    return figure


def _draw_steps(axes: Any, one: Waterfall) -> None:
    names = [*one.factors, "measured"]
    level, tops = 1.0, []
    for factor in one.factors.values():
        tops.append((level, level * factor))
        level *= factor
    tops.append((1.0, level))
    colour = style.colour(one.row.strategy)
    for index, (start, end) in enumerate(tops):
        whole = index in (0, len(tops) - 1)
        axes.bar(
            index,
            end - start,
            bottom=start,
            color=colour if whole else style.scheme().muted if end < start else style.scheme().front,
        )
        text = f"{end:.3g}" if whole else f"x{end / start:.3g}"
        label = axes.annotate(
            text,
            (index, max(start, end)),
            xytext=(0, 1.5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            zorder=5,
        )
        label.set_bbox({"facecolor": style.scheme().paper, "edgecolor": "none", "pad": 0.2, "alpha": 0.85})
    axes.axhline(1.0, color=style.scheme().ink, lw=0.8)
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
    heights = [height for ends in tops for height in ends]
    # A strategy as fast as raster has small factors, which should look small.
    widening = max(1.0, LEAST_SPAN / (max(heights) / min(heights))) ** 0.5
    low, high = min(heights) / widening, max(heights) * widening
    room = (high / low) ** 0.25
    axes.set_ylim(low / room**0.4, high * room)
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names], fontsize=7.5)
    axes.set_ylabel("speed-up\n(log scale)")


def _number(value: float | None) -> Entry:
    return Entry("–") if value is None else Entry(f"{value:,.4g}", value)


PUBLISHED_HEADINGS = (
    "model",
    "steps",
    "batch",
    "precision",
    "device card",
    "quantity",
    "published",
    "predicted",
    "predicted/published",
    "source",
)


def published_predictions() -> list[tuple[str, tuple[str, ...]]]:
    """(strategy, cells under PUBLISHED_HEADINGS) of ``results/predicted.csv``, in the order of our tables."""
    with (resources.files("results") / "predicted.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    found = []
    for line in lines:
        ratio = float(line["predicted"]) / float(line["published"])
        cells = [line[name] for name in ("model", "steps", "batch", "dtype", "card", "quantity", "published")]
        found.append((line["strategy"], (*cells, line["predicted"], f"{ratio:.3g}", line["source"])))
    return sorted(found, key=lambda one: style.rank(one[0]))
