"""Pictures of what strategies do: samples, decoding order, and one image appearing step by step."""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.artifacts import Artifacts, Edits
from reports.captions import note_under, titled
from reports.class_names import named
from reports.frame import Facet
from reports.naming import series_label, steps_text
from results.environments import result_key
from results.schema import Row

_FRAMES = 10
_PANELS = 5
"""Of a line."""
_NUMBERED = 100
"""Most positions of a map whose squares are large enough to hold the step."""
_COLUMNS = 10
_INCH = 0.62
"""Side of an image in a grid."""
_LINE = 0.155
"""Inches from one line of a strip's name to the next."""


def sample_grid(facet: Facet, artifacts: Mapping[str, Artifacts]) -> Figure | None:
    """One row of images per cell, one column per class and noise; anchors on top. None without samples."""
    shown = [
        (row, a.samples, a.classes)
        for row in facet.rows
        if (a := artifacts.get(result_key(row))) and a.samples is not None and a.classes is not None
    ]
    if not shown:
        return None
    classes = _shared_classes([c for _, _, c in shown])
    if not len(classes):
        return None
    rows = [(row, [samples[i] for i in _columns_of(classes, own)]) for row, samples, own in shown]
    heads = named(shown[0][0], classes)
    seeds = {row.seed for row, _ in rows if row.tier != "anchor"}
    note = "each column: one class" + (
        ", one seed and image index, hence the same noise" if len(seeds) < 2 else ""
    )
    strips = [
        _strip(row, facet, images, heads if place == 0 else ()) for place, (row, images) in enumerate(rows)
    ]
    return _image_grid("Samples", strips, facet.caption, _in_a_file(note))


def film_strip(facet: Facet, artifacts: Mapping[str, Artifacts]) -> Figure | None:
    """One image appearing, a row per cell; each frame names its step. None without films."""
    strips = []
    for row in facet.cells:
        stored = artifacts.get(result_key(row))
        if stored is not None and stored.film is not None:
            film, steps = _of_its_image(row, stored.film, stored.steps_of_images)
            frames = np.unique(np.linspace(0, len(film) - 1, min(_FRAMES, len(film))).round().astype(int))
            heads = [_frame_name(int(i), len(film), steps) for i in frames]
            strips.append(_strip(row, facet, [film[i] for i in frames], heads))
    if not strips:
        return None
    note = "each frame: the image decoded from the tokens written after that step"
    return _image_grid("One image appearing", strips, facet.caption, _in_a_file(note))


def edit_grid(edits: Edits) -> Figure:
    """What a network made of real images of which a part was given: a row per image and task."""
    colour = style.colour(edits.strategy)
    strips = [
        Strip(label, colour, images, edits.heads if place == 0 else ())
        for place, (label, images) in enumerate(zip(edits.labels, edits.images, strict=True))
    ]
    title = f"Around given tokens: {style.title(edits.strategy)}"
    return _image_grid(title, strips, edits.caption, "grey: drawn anew; all other tokens are the image's own")


def order_maps(facet: Facet, artifacts: Mapping[str, Artifacts]) -> Figure | None:
    """The step at which each position is written, a panel per order: cells of one label that differ in it not
    at all (but in guidance, say) share theirs. None without orders."""
    distinct = {
        (row.label, row.steps, a.step_of_position.tobytes()): (row, a.step_of_position)
        for row in facet.cells
        if (a := artifacts.get(result_key(row))) and a.step_of_position is not None
    }
    if not distinct:
        return None
    panels = list(distinct.values())
    sharing = Counter((row.label, row.steps) for row, _ in panels)
    with plt.rc_context(style.rc() | {"axes.grid": False}):
        figure, grid = grid_panels(len(panels))
        for axes, (row, order) in zip(grid.flat, panels, strict=False):
            alone = sharing[row.label, row.steps] == 1
            image = _draw_order(axes, row, order, row.label if alone else series_label(row, facet.rows))
        bar = figure.colorbar(image, ax=grid[:, -1], ticks=[0, 0.5, 1], fraction=0.08, pad=0.06)
        bar.ax.set_yticklabels(["first", "half", "last"])
        bar.outline.set_visible(False)
        bar.set_label("step that writes the position", fontsize=9)
        titled(figure, "Order of generation")
        numbered = any(order.size <= _NUMBERED for _, order in panels)
        note = "with an order per image, that of the first"
        notes = ["numbers: steps from 1"] * numbered + [one for one in (_in_a_file(note),) if one]
        note_under(figure, facet.caption, "; ".join(notes))
    return figure


def _in_a_file(note: str) -> str:
    """A note that the page has over the picture already."""
    return note if style.scheme().alone else ""


def _draw_order(axes: Axes, row: Row, order: np.ndarray, label: str) -> matplotlib.image.AxesImage:
    """One heat map, scaled to the cell's own steps; numbered where the grid is small enough to read."""
    steps = max(row.steps or 0, int(np.ceil(order.max())) + 1)
    shade = np.ma.masked_less(order, 0) / max(steps - 1, 1)  # nothing between the maps of a canvas
    image = axes.imshow(shade, cmap=style.ORDER_MAP, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    name = "\n".join(textwrap.wrap(label, 20))
    told = f"{steps} steps" if row.steps is None else steps_text(row)
    axes.set_title(
        f"{name}\n{told}", color=style.lettering(style.colour(row.strategy)), fontsize=9.5, loc="center"
    )
    if order.size <= _NUMBERED:
        for (y, x), step in np.ndenumerate(order):
            if step < 0:
                continue
            ink = "white" if shade[y, x] < 0.6 else style.INK
            number = f"{round(float(step)) + 1}"
            text = axes.text(x, y, number, ha="center", va="center", fontsize=6, color=ink)
            text.set_in_layout(False)  # inside its square anyway; the layout need not measure hundreds
    return image


@dataclass(frozen=True)
class Strip:
    """A row of images [H, W, 3] with its label, and what stands over each of them (or nothing)."""

    label: str
    colour: str
    images: Sequence[np.ndarray]
    heads: Sequence[str] = ()


def _strip(row: Row, facet: Facet, images: Sequence[np.ndarray], heads: Sequence[str]) -> Strip:
    colour = style.scheme().muted if row.tier == "anchor" else style.lettering(style.colour(row.strategy))
    return Strip(_row_name(row, facet), colour, images, heads)


def _image_grid(title: str, strips: Sequence[Strip], caption: str, note: str) -> Figure:
    """The strips below one another, each named in its colour and each image by its head."""
    columns = max(len(strip.images) for strip in strips)
    margin = 0.085 * max(len(line) for strip in strips for line in strip.label.split("\n")) + 0.15
    rooms = [max(_INCH, _LINE * len(strip.label.split("\n"))) for strip in strips]
    heights = [room + (0.2 if strip.heads else 0.06) for room, strip in zip(rooms, strips, strict=True)]
    top, width = 0.3 if style.scheme().alone else 0.0, margin + columns * (_INCH + 0.05)
    height = sum(heights) + top
    with plt.rc_context(style.rc() | {"axes.grid": False}):
        figure = plt.figure(figsize=(width, height))
        page = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # in inches, from the bottom left
        page.set_axis_off()
        if style.scheme().alone:
            page.text(0.0, height - 0.08, title, va="top", fontweight="bold", fontsize=11)
        bottom = height - top
        for strip, room, tall in zip(strips, rooms, heights, strict=True):
            bottom -= tall
            name: dict[str, Any] = {
                "color": strip.colour,
                "fontsize": 9,
                "weight": "bold",
                "ha": "right",
                "va": "center",
            }
            page.text(margin - 0.12, bottom + room / 2, strip.label, **name)
            for column, image in enumerate(strip.images):
                left = margin + column * (_INCH + 0.05)
                _place_image(page, image, left, bottom + (room - _INCH) / 2)
                if strip.heads:
                    above = bottom + room + 0.04
                    page.text(left + _INCH / 2, above, strip.heads[column], fontsize=7.5, ha="center")
        page.set(xlim=(0, width), ylim=(0, height))
        note_under(figure, caption, note)
    return figure


def _place_image(page: Axes, image: np.ndarray, left: float, bottom: float) -> None:
    """Draws an image [H, W, 3] as large as a square of ``_INCH`` inches allows, in its middle."""
    tall, wide = (_INCH * side / max(image.shape[:2]) for side in image.shape[:2])
    x, y = left + (_INCH - wide) / 2, bottom + (_INCH - tall) / 2
    page.imshow(image, extent=(x, x + wide, y, y + tall), interpolation="nearest", aspect="auto")


def _row_name(row: Row, facet: Facet) -> str:
    label = "\n".join(textwrap.wrap(series_label(row, facet.rows), 18))
    return label if row.tier == "anchor" or row.steps is None else f"{label}\n{steps_text(row)}"


def _of_its_image(row: Row, film: np.ndarray, orders: np.ndarray | None) -> tuple[np.ndarray, float | None]:
    """The film up to the last step of the image that it shows, the first, and how many steps that are.

    Where images go at their own pace it goes on until the slowest of the batch is done.
    """
    if orders is None or row.steps is None or row.steps_least in (None, row.steps_most):
        return film, row.steps
    own = int(orders[0].max()) + 1
    return (film[: own + 1], own) if len(film) > own else (film, row.steps)


def _frame_name(index: int, frames: int, steps: float | None) -> str:
    """The step after which a frame was taken; films may hold fewer frames than steps."""
    if steps is None:
        return f"{index + 1}/{frames}"
    if frames == steps + 1:  # such films open before the first step
        return "start" if index == 0 else f"step {index}"
    return f"step {round((index + 1) * steps / frames)}"


def _shared_classes(per_row: Sequence[np.ndarray]) -> np.ndarray:
    """The first classes that every row can show, with repeats, in the order of the first row."""
    shared: list[int] = []
    for value in per_row[0].tolist():
        if all((own == value).sum() > shared.count(value) for own in per_row):
            shared.append(value)
    return np.array(shared[:_COLUMNS])


def _columns_of(classes: np.ndarray, own: np.ndarray) -> list[int]:
    """Index into a row's samples of each column: the first unused sample of the column's class."""
    unused = {int(c): iter(np.flatnonzero(own == c).tolist()) for c in np.unique(classes)}
    return [next(unused[int(c)]) for c in classes]


def grid_panels(count: int) -> tuple[Figure, np.ndarray]:
    """A figure of ``count`` panels, five a line: axes [lines, columns], those left over switched off."""
    columns = min(count, _PANELS)
    lines = -(-count // columns)
    size = (1.95 * columns + 0.5, 2.3 * lines + 0.3)
    figure, grid = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    return figure, grid
