"""Bits lost by decoding in groups, added up over the steps: order rules compared by their own network."""

from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.artifacts import Artifacts
from reports.comparability import quantity, require_comparable, row_keys
from reports.frame import Facet, series_label
from reports.inference import mean_estimate
from results.schema import Row

ROUNDING_BITS = 1e-3
"""Bits per image that rounding alone explains: such cells lose nothing and are named, not drawn."""
_COLUMNS = 3


def curves(facet: Facet, beside: Mapping[str, Artifacts]) -> Figure | None:
    """A panel per judge, which is the cell's own network; a curve per cell. None where nothing is lost."""
    panels: dict[tuple[str, ...], list[tuple[Row, np.ndarray]]] = {}
    without_loss = []
    for row in facet.cells:
        bits = beside[row.cell].lossiness_bits if row.cell in beside else None
        if bits is None:
            continue
        if abs(bits.sum(axis=1).mean()) <= ROUNDING_BITS:
            without_loss.append(f"{row.label}, {row.steps} steps")
            continue
        keys = row_keys(row)
        panels.setdefault(tuple(keys[key] for key in quantity("lossiness_bits").keys), []).append((row, bits))
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    with plt.rc_context(style.RC):
        figure, grid = plt.subplots(
            lines, columns, figsize=(1 + 4.6 * columns, 4.2 * lines), squeeze=False, layout="constrained"
        )
        for axes, cells in zip(grid.flat, panels.values(), strict=False):
            _panel(axes, facet, cells)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        figure.suptitle("Bits lost by decoding in groups, added up over the steps")
        note = f"Lost nothing: {'; '.join(without_loss)}. " if without_loss else ""
        text = f"{note}{facet.caption}. Band: 95 % interval over images. Panels have different judges."
        figure.supxlabel("\n".join(style.wrapped(text, 60 + 60 * columns)), fontsize=7.5, color=style.MUTED)
    return figure


def _panel(axes: Axes, facet: Facet, cells: list[tuple[Row, np.ndarray]]) -> None:
    require_comparable([row for row, _ in cells], quantity("lossiness_bits").keys, "lossiness")
    shades = np.linspace(1.0, 0.45, len(cells))
    for (row, bits), shade in zip(cells, shades, strict=True):
        steps = np.arange(1, bits.shape[1] + 1)
        lost = np.array([mean_estimate(sums) for sums in bits.cumsum(axis=1, dtype=np.float64).T], float)
        colour = style.colour(row.strategy)
        axes.plot(
            steps,
            lost[:, 0],
            color=colour,
            alpha=float(shade),
            marker=style.marker(row.strategy),
            markersize=3,
            linestyle="--" if row.options else "-",
            label=f"{series_label(row, facet.rows)}, {row.steps} steps",
        )
        axes.fill_between(steps, lost[:, 1], lost[:, 2], color=colour, alpha=0.12, lw=0)
    axes.set_title(f"judged by {cells[0][0].network}", fontsize=10)
    axes.set_xlabel("decoding step")
    axes.set_ylabel("bits lost per image")
    axes.legend(fontsize=7.5, frameon=False)
