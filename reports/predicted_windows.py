"""Predicted speed of speculative decoding against its window, on the cards that papers measure on."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.captions import note_under, titled
from reports.labels import Label, place_labels

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
DARK = ("#58aee8", "#f47f5a", "#35c394", "#e39cc6")
"""Of the cards, by name; the latter on dark paper."""
Lines = dict[str, np.ndarray]
"""Card -> (window, times raster) [n, 2]."""


@dataclass(frozen=True)
class Panel:
    """The cards at one batch and one share of accepted drafts."""

    batch: int
    acceptance: float
    lines: Lines


def panels() -> tuple[str, list[Panel]]:
    """What was predicted for, and every panel of ``results/predicted_windows.csv``."""
    with (resources.files("results") / "predicted_windows.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[tuple[int, float], dict[str, list[tuple[int, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in (row for row in rows if row["mode"] == "recorded"):
        where = found[int(row["batch"]), float(row["acceptance"])]
        where[row["card"]].append((int(row["window"]), float(row["times_raster"])))
    subject = f"SJD on {rows[0]['network']}, {rows[0]['dtype']}, guided"
    return subject, [
        Panel(batch, share, {card: np.array(sorted(points)) for card, points in cards.items()})
        for (batch, share), cards in sorted(found.items())
    ]


def figure() -> Figure:
    """Times raster's speed over the window: a row for each batch, a column for each share."""
    subject, found = panels()
    batches = sorted({one.batch for one in found})
    shares = sorted({one.acceptance for one in found})
    with plt.rc_context(style.rc()):
        drawn, grid = plt.subplots(
            len(batches),
            len(shares),
            figsize=(3.7 * len(shares) + 0.4, 3.0 * len(batches) + 0.6),
            sharex=True,
            sharey="row",
            squeeze=False,
            layout="constrained",
        )
        titled(drawn, "Predicted against the window of drafts")
        for one in found:
            axes = grid[batches.index(one.batch), shares.index(one.acceptance)]
            _panel(axes, one)
        for axes in grid[:, 0]:
            axes.set_ylim(bottom=0)  # of its row
        drawn.canvas.draw()
        drawn.set_layout_engine("none")  # labels are placed on final axes
        for row in range(len(batches)):
            axes, one = grid[row, -1], found[(row + 1) * len(shares) - 1]
            labels = [
                Label(card, float(points[-1, 0]), float(points[-1, 1]), colour, size=8.5)
                for (card, points), colour in zip(one.lines.items(), _colours(), strict=False)
            ]
            place_labels(axes, labels, list(one.lines.values()))
        note_under(
            drawn,
            "",  # no facet's settings: the page doesn't say these
            f"{subject}; shares of accepted drafts are declared; recorded passes, by counted work and data "
            "sheets; larger marks: the fastest window",
        )
    return drawn


def _colours() -> tuple[str, ...]:
    return DARK if style.scheme().dark else COLOURS


def _panel(axes: Axes, one: Panel) -> None:
    axes.axhline(1.0, color=style.scheme().ink, lw=0.8, alpha=0.5)
    windows = sorted({int(window) for points in one.lines.values() for window in points[:, 0]})
    for points, colour in zip(one.lines.values(), _colours(), strict=False):
        axes.plot(*points.T, color=colour, marker="o", ms=3, lw=1.3)
        axes.plot(*points[points[:, 1].argmax()], color=colour, marker="o", ms=7)
    axes.set_xscale("log", base=2)
    axes.set_xticks(windows, labels=[str(window) for window in windows])
    axes.set_title(f"batch {one.batch}, {one.acceptance:g} accepted", fontsize=9)
    axes.set_xlabel("window (log scale)")
    axes.set_ylabel("times raster")
