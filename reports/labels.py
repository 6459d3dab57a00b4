"""Direct labels that keep clear of each other, of the data and of the frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from reports import style

_ANGLES = np.deg2rad([45, 0, 90, 315, 135, 270, 180, 225, 22, 67, 112, 157, 202, 247, 292, 337])
_DISTANCES = (9.0, 13.0, 18.0, 26.0, 36.0, 50.0, 68.0, 90.0)
_LEADER = 13.0
"""Points between a data point and its label beyond which a line joins them."""
_HALO = 2.0
"""Points of paper around letters, so that a line behind them doesn't cross them out."""
_BESIDE_ANOTHER, _OUTSIDE, _ON_A_MARK, _ON_A_LINE = 1000, 2000, 40, 12
"""Penalties of a place: for each label that it touches, for leaving the frame, where the names of the axes
stand, and for each point of a mark or of a line that it covers."""


@dataclass(frozen=True)
class Label:
    """Text that belongs to a data point."""

    text: str
    x: float
    y: float
    colour: str
    size: float = 9.5
    weight: str = "bold"


def place_labels(axes: Axes, labels: Sequence[Label], segments: Sequence[np.ndarray] = ()) -> None:
    """Draws each label at the free place nearest to its point, most important (first) labels first.

    ``segments``: polylines [points, 2] in data coordinates that labels should not cover. A label pushed far
    from its point gets a thin leader line. Limits and scales of the axes must be final.
    """
    figure = axes.figure
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    unit = figure.dpi / 72
    crossed = [
        _sampled(axes.transData.transform(np.asarray(line, float)), 3 * unit)
        for line in segments
        if len(line)
    ]
    points = np.array([axes.transData.transform((label.x, label.y)) for label in labels]).reshape(-1, 2)
    rim = 5 * unit * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    markers = (points[:, None] + rim).reshape(-1, 2)
    covered = np.concatenate([points, markers, *crossed])
    weights = np.full(len(covered), _ON_A_LINE)
    weights[: len(points) + len(markers)] = _ON_A_MARK
    taken: list[Bbox] = [text.get_window_extent(renderer) for text in axes.texts]
    for label, point in zip(labels, points, strict=True):
        text = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=style.lettering(label.colour),
            fontsize=label.size,
            fontweight=label.weight,
            zorder=6,
            annotation_clip=False,
            path_effects=[withStroke(linewidth=2 * _HALO, foreground=style.scheme().paper)],
        )
        box = text.get_window_extent(renderer)
        offset = _best_offset(point, box.width, box.height, frame, (covered, weights), taken, unit)
        text.set_position((offset[0] / unit, offset[1] / unit))
        placed = _box(point + offset, box.width, box.height)
        taken.append(placed)
        nearest = np.clip(point, (placed.x0 - unit, placed.y0), (placed.x1 + unit, placed.y1))
        if np.hypot(*(nearest - point)) > _LEADER * unit:
            end = axes.transData.inverted().transform(nearest)
            axes.plot([label.x, end[0]], [label.y, end[1]], color=label.colour, lw=0.7, zorder=3)


def label_ends(
    axes: Axes, ends: Sequence[tuple[str, str, np.ndarray]], size: float = 9.0, weight: str = "bold"
) -> None:
    """Names right of the frame at the ends of lines, pushed apart where the lines end close together.

    ``ends``: name, colour and last point [2] of each line. Limits and scales of the axes must be final.
    """
    if not ends:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    pixels = np.array([axes.transData.transform(end) for _, _, end in ends])
    gap = 13.0 * axes.figure.dpi / 72
    order = np.argsort(pixels[:, 1])
    heights = pixels[order, 1].copy()
    for _ in range(200):  # push neighbours apart evenly until none are closer than the gap
        overlaps = np.maximum(gap - np.diff(heights), 0)
        if overlaps.max(initial=0) < 0.1:
            break
        heights[:-1] -= overlaps / 2
        heights[1:] += overlaps / 2
        heights = heights.clip(frame.y0, frame.y1)
    for index, height in zip(order, heights, strict=True):
        name, colour, end = ends[index]
        shift = (height - pixels[index, 1]) * 72 / axes.figure.dpi
        axes.annotate(
            name,
            tuple(end),
            xytext=(16, shift),
            textcoords="offset points",
            va="center",
            color=style.lettering(colour),
            fontsize=size,
            fontweight=weight,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkB": 5, "relpos": (0, 0.5)},
        )


def _best_offset(
    point: np.ndarray,
    width: float,
    height: float,
    frame: Bbox,
    data: tuple[np.ndarray, np.ndarray],
    taken: Sequence[Bbox],
    unit: float,
) -> np.ndarray:
    """Pixels from point to label centre with the least penalty; ``data``: points [n, 2] that should stay
    uncovered, and the penalty of each [n]."""
    covered, weights = data
    best, least = np.zeros(2), np.inf
    for nearness, distance in enumerate(_DISTANCES):
        for preference, angle in enumerate(_ANGLES):
            direction = np.array([np.cos(angle), np.sin(angle)])
            offset = direction * (distance * unit + np.abs(direction) * (width / 2, height / 2 - 2 * unit))
            box = _box(point + offset, width, height)
            padded = box.padded(1.5 * unit)
            reach = (width / 2 + 2 * unit, height / 2 + 1 * unit)
            hit = weights[(np.abs(covered - point - offset) < reach).all(axis=1)].sum()
            overlaps = sum(padded.overlaps(other) for other in taken)
            outside = not (
                frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            )
            penalty = _BESIDE_ANOTHER * overlaps + _OUTSIDE * outside + hit
            penalty += 6 * nearness + 0.2 * preference
            if penalty < least:
                best, least = offset, penalty
    return best


def _box(centre: np.ndarray, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(centre[0] - width / 2, centre[1] - height / 2, width, height)


def _sampled(line: np.ndarray, spacing: float) -> np.ndarray:
    """Points [n, 2] along a polyline, ``spacing`` pixels apart."""
    pieces = [line[-1:]]
    for start, end in pairwise(line):
        count = max(2, int(np.hypot(*(end - start)) / spacing))
        pieces.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    return np.concatenate(pieces)
