"""Bits lost by decoding in groups, added up over the steps: order rules compared by their own network."""

from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports import style
from reports.artifacts import Artifacts
from reports.captions import note_under, titled
from reports.comparability import quantity, require_comparable, row_keys
from reports.frame import Facet
from reports.inference import mean_estimate
from reports.labels import Label, place_labels
from reports.naming import series_label, steps_text
from results.environments import result_key
from results.schema import Row

ROUNDING_BITS = 1e-3
"""Bits per image that rounding alone explains: such cells lose nothing and are named, not drawn."""
_COLUMNS = 3
_LINES = ("-", "--", ":", "-.")
"""A line style for every set of options of a panel."""


def curves(facet: Facet, beside: Mapping[str, Artifacts]) -> Figure | None:
    """A panel per judge, which is the cell's own network; a curve per cell. None where nothing is lost."""
    panels: dict[tuple[str, ...], list[tuple[Row, np.ndarray]]] = {}
    without_loss = []
    for row in facet.cells:
        bits = beside[result_key(row)].lossiness_bits if result_key(row) in beside else None
        if bits is None:
            continue
        if abs(bits.sum(axis=1).mean()) <= ROUNDING_BITS:
            without_loss.append(f"{row.label}, {steps_text(row)}")
            continue
        keys = row_keys(row)
        panels.setdefault(tuple(keys[key] for key in quantity("lossiness_bits").keys), []).append((row, bits))
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    with plt.rc_context(style.rc()):
        figure, grid = plt.subplots(
            lines, columns, figsize=(1 + 5 * columns, 4.4 * lines), squeeze=False, layout="constrained"
        )
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        titled(figure, "Bits lost by decoding in groups, added up over the steps")
        nothing = f"lost nothing: {'; '.join(dict.fromkeys(without_loss))}; " if without_loss else ""
        named = [
            (axes, _panel(axes, facet, cells))
            for axes, cells in zip(grid.flat, panels.values(), strict=False)
        ]
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # labels are placed on final axes
        for axes, (labels, segments) in named:
            place_labels(axes, labels, segments)
        note_under(figure, facet.caption, f"{nothing}band: 95 % interval over images")
    return figure


def _panel(
    axes: Axes, facet: Facet, cells: list[tuple[Row, np.ndarray]]
) -> tuple[list[Label], list[np.ndarray]]:
    """Draws the curves; returns their names, at their ends, and their polylines [points, 2]."""
    require_comparable([row for row, _ in cells], quantity("lossiness_bits").keys, "lossiness")
    variants = list(dict.fromkeys(str(row.options) for row, _ in cells))
    labels, segments = [], []
    for row, bits in cells:
        steps = np.arange(1, bits.shape[1] + 1)
        lost = np.array([mean_estimate(sums) for sums in bits.cumsum(axis=1, dtype=np.float64).T], float)
        colour = style.colour(row.strategy)
        axes.plot(
            steps,
            lost[:, 0],
            color=colour,
            marker=style.marker(row.strategy),
            markersize=3,
            linestyle=_LINES[variants.index(str(row.options)) % len(_LINES)],
        )
        axes.fill_between(steps, lost[:, 1], lost[:, 2], color=colour, alpha=0.1, lw=0)
        name = f"{series_label(row, facet.rows)}, {steps_text(row)}"
        labels.append(Label(name, steps[-1], lost[-1, 0], colour, 7.5, "normal"))
        segments.append(np.stack([steps, lost[:, 0]], axis=1))
    axes.set_xlim(0, 1.5 * max(line[-1, 0] for line in segments))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"judged by {cells[0][0].network}", fontsize=10)
    axes.set_xlabel("decoding step")
    axes.set_ylabel("bits lost per image")
    return labels, segments
