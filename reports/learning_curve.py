"""The learning curve as a figure: loss and quality against training images, a line for each strategy."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import learning, style
from reports.beyond_reconstruction import reconstruction_of
from reports.captions import note_under, titled
from reports.frame import Facet, metrics
from reports.labels import Label, place_labels
from reports.learning import Run, Series, Stored
from reports.measured import estimate_of
from reports.plots import scale_quality

_FROM = 0.2
"""Share of the first mark's images from which losses are drawn: what is before would flatten the rest."""
_ROOM = 1.1
"""Beyond the losses of finished networks. RAR's random orders cost more and would flatten the rest."""
_TICK = 25_000
Named = tuple[list[Label], list[np.ndarray]]
"""Names at the ends of lines, and the lines [n, 2]."""


def figure(facet: Facet, stored: Stored) -> Figure | None:
    """Validation loss of every mark, and quality at the paper's steps where some network has several marks;
    None where rows tell of neither."""
    runs, metric = learning.runs(facet, stored), next(iter(metrics(facet.cells)), None)
    series = learning.series(facet, metric) if metric else []
    curved = any(len(one.rows) > 1 for one in series)
    panels = [name for name, shown in (("loss", runs), ("quality", curved)) if shown]
    if not panels:
        return None
    with plt.rc_context(style.rc()):
        drawn, grid = plt.subplots(
            1, len(panels), figsize=(5.6 * len(panels) + 0.4, 4.4), squeeze=False, layout="constrained"
        )
        titled(drawn, "Against training images")
        named = []
        for axes, name in zip(grid.flat, panels, strict=True):
            named.append(
                _losses(axes, runs) if name == "loss" else _quality(axes, facet, series, str(metric))
            )
            _images_across(axes)
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")  # labels are placed on final axes
        for axes, (labels, lines) in zip(grid.flat, named, strict=True):
            place_labels(axes, labels, lines)
        note_under(
            drawn,
            facet.caption,
            "marks: finished networks, whose rate has fallen to nothing; thin: loss while learning; "
            "bars: 95 % intervals over images",
        )
    return drawn


def _losses(axes: Axes, runs: list[Run]) -> Named:
    labels, lines = [], []
    for run in runs:
        colour = style.colour(run.strategy)
        least = _FROM * run.marks[:, 0].min()
        shown = run.taught[run.taught[:, 0] >= least]
        axes.plot(*shown.T, color=colour, lw=0.8, alpha=0.6)
        axes.plot(*run.marks.T, color=colour, marker=style.marker(run.strategy))
        labels.append(_named(style.title(run.strategy), run.marks, colour))
        lines.append(run.marks)
    ends = np.concatenate([run.marks[:, 1] for run in runs])
    axes.set_ylim(ends.min() / _ROOM, ends.max() * _ROOM)
    axes.set_ylabel("validation loss, nats a token")
    axes.set_title("Loss", fontsize=10)
    return labels, lines


def _quality(axes: Axes, facet: Facet, series: list[Series], metric: str) -> Named:
    labels, lines, bounds = [], [], []
    for one in series:
        colour = style.colour(one.strategy)
        known = [estimate_of(row, metric) for row in one.rows]
        points = np.array([[images, value] for images, (value, _, _) in zip(one.images, known, strict=True)])
        bars = [[_far(value, low), _far(value, high)] for value, low, high in known]
        axes.errorbar(
            points[:, 0],
            points[:, 1],
            yerr=np.array(bars).T,
            color=colour,
            marker=style.marker(one.strategy),
            capsize=2,
            lw=1.4,
        )
        labels.append(_named(one.name, points, colour))
        lines.append(points)
        bounds += [bound for _, *ends in known for bound in ends if bound is not None]
    heights = [points[:, 1] for points in lines]
    axes.set_ylabel(metric)
    axes.set_title("Quality at the paper's steps", fontsize=10)
    anchor = reconstruction_of(series[0].rows[0], facet.anchors, metric)
    if anchor is not None:
        height = estimate_of(anchor, metric)[0]
        axes.axhline(height, color=style.colour(anchor.strategy), lw=1, ls="--")
        where = ("axes fraction", "data")
        axes.annotate(anchor.label, (1, height), (-2, 3), where, "offset points", ha="right", fontsize=7.5)
        heights.append(np.array([height]))
    scale_quality(axes, np.concatenate(heights).tolist(), bounds, metric)
    return labels, lines


def _far(value: float, bound: float | None) -> float:
    return 0.0 if bound is None else abs(bound - value)


def _named(name: str, line: np.ndarray, colour: str) -> Label:
    """The name at the end of its line."""
    return Label(name, float(line[-1, 0]), float(line[-1, 1]), colour, size=8.5)


def _images_across(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    low, high = axes.get_xlim()
    ticks = [_TICK * 2.0**power for power in range(-5, 8)]
    inside = [tick for tick in ticks if low <= tick <= high]
    if inside:
        axes.set_xticks(inside, labels=[f"{tick:,.0f}" for tick in inside])
        axes.minorticks_off()
    axes.set_xlim(low, high * (high / low) ** 0.4)
    axes.set_xlabel("training images (log scale)")
