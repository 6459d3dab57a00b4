"""Published figures as points beside measured ones: only where both were made under the same conditions.

Quality needs the same N, reference and protocol, throughput also the same GPU, batch and data type; what a
paper doesn't state is not the same. Points have no intervals and are never part of a front or a series.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from reports import style
from reports.claims import FIGURES
from reports.frame import Facet
from reports.labels import Label
from reports.published import published_lines
from results.schema import Row

CONDITIONS = ("n", "reference", "protocol")
MACHINE = ("device", "batch", "dtype", "detokenizer")
NOTE = "stars: as printed in the papers, without intervals"


@dataclass(frozen=True)
class Point:
    """A figure of a paper; x is steps or images/s."""

    x: float
    y: float
    strategy: str
    name: str


def published_points(facet: Facet, metric: str, over_throughput: bool) -> list[Point]:
    """The papers' figures of the facet's networks that may stand beside its cells."""
    column = next((name for name, one in FIGURES.items() if metric.partition("@")[0] in one.metrics), None)
    if column is None:
        return []
    x = "throughput_img_s" if over_throughput else "steps"
    compared = [(column, CONDITIONS), *([(x, MACHINE)] if over_throughput else [])]
    points: dict[tuple[float, float, str], Point] = {}
    for line in published_lines():
        if not line[column] or not line[x]:
            continue
        row = next((row for row in facet.cells if _same_conditions(line, row, compared)), None)
        if row is not None:
            name = line["model"] + (f", {line['steps']} steps" if over_throughput and line["steps"] else "")
            point = Point(float(line[x]), float(line[column]), row.strategy, name)
            points.setdefault((point.x, point.y, point.name), point)
    return list(points.values())


def _same_conditions(
    line: Mapping[str, str], row: Row, compared: Sequence[tuple[str, tuple[str, ...]]]
) -> bool:
    if row.network != line["network"]:
        return False
    for column, keys in compared:
        expected, found = FIGURES[column].expected(line), FIGURES[column].found(row)
        if any(found[key] != expected[key] for key in keys if key in expected):
            return False
    return True


def draw(axes: Axes, points: Sequence[Point]) -> list[Label]:
    """Hollow stars in the strategies' colours; returns their labels."""
    for point in points:
        axes.plot(
            [point.x],
            [point.y],
            marker="*",
            markersize=11,
            markerfacecolor=style.scheme().paper,
            color=style.colour(point.strategy),
            linestyle="none",
            zorder=3,
        )
    return [
        Label(f"{point.name}, paper", point.x, point.y, style.colour(point.strategy), 8, "normal")
        for point in points
    ]
