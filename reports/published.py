"""What the papers print about a strategy, to be read beside the published tier's rows, not against them.

The figures of ``results/published.csv`` come from the papers' own machines, batches and protocols, and have
no intervals.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from reports import style
from results.schema import Row

NOTE = "As printed in the papers: their own devices, batches, references and N; no intervals are given there."

_COLUMNS = {
    "model": "model",
    "params_m": "parameters M",
    "resolution": "pixels",
    "steps": "steps",
    "fid": "FID",
    "sfid": "sFID",
    "inception_score": "IS",
    "precision": "precision",
    "recall": "recall",
    "guidance": "guidance",
    "throughput_img_s": "images/s",
    "latency_s": "latency s",
    "memory_gb": "memory GB",
    "device": "device",
    "source": "source",
}
HEADINGS = tuple(_COLUMNS.values())


@dataclass(frozen=True)
class PublishedFigure:
    """One line of a paper's table: ``cells`` under ``HEADINGS``, empty where the paper has none."""

    strategy: str
    cells: tuple[str, ...]


@lru_cache(maxsize=1)
def published_lines() -> tuple[dict[str, str], ...]:
    """The lines of ``results/published.csv``, by column; empty text where a paper doesn't say.

    After the paper's own words stand the same facts as our rows have them: ``strategy`` and ``network`` (our
    preset), ``weights`` (whether the authors published those of this figure), guidance ``scale`` and
    ``schedule``, ``temperature``, ``options`` that differ from the preset's, ``gpu``, ``dtype``, ``batch``,
    ``detokenizer`` (whether the time includes it).
    """
    with (resources.files("results") / "published.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def beside(rows: Iterable[Row]) -> list[PublishedFigure]:
    """The papers' lines that belong beside ``rows``: those of the strategies in the published tier."""
    systems = {_system(row): row.strategy for row in rows if row.tier == "published"}
    lines = [line for line in published_lines() if line["system"] in systems]
    figures = [
        PublishedFigure(systems[line["system"]], tuple(line[column] for column in _COLUMNS)) for line in lines
    ]
    return sorted(figures, key=lambda figure: style.rank(figure.strategy))


def _system(row: Row) -> str | None:
    """What the papers call the strategy: its title, or the system to which its network belongs."""
    title = style.title(row.strategy)
    lines = published_lines()
    if any(line["system"] == title for line in lines):
        return title
    return next((line["system"] for line in lines if line["network"] == row.network), None)
