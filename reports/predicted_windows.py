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
from reports.labels import label_ends

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
DARK = ("#58aee8", "#f47f5a", "#35c394", "#e39cc6")
MARKERS = ("o", "s", "D", "^")
"""Of the cards, by name; ``DARK`` on dark paper."""
_ALIKE = 0.01
"""Relative difference of two cards' lines below which one would hide the other."""
_DASH = 3.5
"""Length of a card's dash in a line that it shares, in widths of that line."""
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
            axes.set_ylabel("times raster")
        for axes in grid[-1]:
            axes.set_xlabel("window (log scale)")
        drawn.draw_without_rendering()
        drawn.set_layout_engine("none")  # names are placed on final axes
        for row in range(len(batches)):
            last = found[(row + 1) * len(shares) - 1]
            ends = [(card, _look(last, card)[0], points[-1]) for card, points in last.lines.items()]
            label_ends(grid[row, -1], ends)
        note_under(
            drawn,
            "",  # no facet's settings: the page doesn't say these
            f"{subject}; shares of accepted drafts are declared; recorded passes, by counted work and data "
            "sheets; larger marks: the fastest window; a line in dashes of several colours, with round grey "
            "marks, is of all these cards",
        )
    return drawn


def alike(lines: Lines) -> list[list[str]]:
    """The cards in groups, each of lines that lie on each other."""
    groups: list[list[str]] = []
    for card, points in lines.items():
        home = next((group for group in groups if np.allclose(lines[group[0]], points, rtol=_ALIKE)), None)
        if home is None:
            groups.append([card])
        else:
            home.append(card)
    return groups


def _look(one: Panel, card: str) -> tuple[str, str]:
    """Colour and marker of a card."""
    place = list(one.lines).index(card)
    return (DARK if style.scheme().dark else COLOURS)[place], MARKERS[place]


def _panel(axes: Axes, one: Panel) -> None:
    axes.axhline(1.0, color=style.scheme().ink, lw=0.8, alpha=0.5)
    windows = sorted({int(window) for points in one.lines.values() for window in points[:, 0]})
    for group in alike(one.lines):
        for turn, card in enumerate(group):
            colour, mark = _look(one, card)
            axes.plot(*one.lines[card].T, color=colour, lw=1.6, linestyle=_turns(turn, len(group)))
        if len(group) > 1:
            colour, mark = style.scheme().muted, "o"
        points = one.lines[group[0]]
        axes.plot(*points.T, color=colour, marker=mark, ms=4, linestyle="none")
        axes.plot(*points[points[:, 1].argmax()], color=colour, marker=mark, ms=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(windows, labels=[str(window) for window in windows])
    axes.minorticks_off()
    axes.set_title(f"batch {one.batch}, {one.acceptance:g} accepted", fontsize=9)


def _turns(turn: int, count: int) -> str | tuple[float, tuple[float, float]]:
    """The line style of one of ``count`` cards whose lines are one: each shows where the others are off."""
    return "-" if count == 1 else (-turn * _DASH, (_DASH, (count - 1) * _DASH))
