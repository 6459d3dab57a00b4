"""Tables as the page shows them: texts, the numbers that they sort by, and whose they are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reports.contests import TextTable
from reports.differences import ONE_NETWORK
from reports.fitting import DASH, told_columns
from reports.tables import Entry, ReportTable

_NUMBER = re.compile(r"[±<]?\s*[-+−]?[\d.]+(?![\w-]*[a-z]{2})")


@dataclass(frozen=True)
class Line:
    """One line; ``strategy`` lends its colour to the first cell, ``look`` is anchor, failed or nothing."""

    cells: tuple[Entry, ...]
    strategy: str | None = None
    look: str = ""


@dataclass(frozen=True)
class Grid:
    """A table: ``numeric`` says which columns are set to the right; the first stays in view."""

    title: str
    headings: tuple[str, ...]
    numeric: tuple[bool, ...]
    lines: tuple[Line, ...]
    note: str = ""


def of_report(table: ReportTable) -> Grid:
    """A table of cells, anchors and failures."""
    looks = ["anchor" if row.tier == "anchor" else "failed" * (row.status != "ok") for row in table.rows]
    lines = [
        Line(entries, row.strategy, look)
        for row, entries, look in zip(table.rows, table.entries, looks, strict=True)
    ]
    columns = table.columns
    return Grid(
        table.title,
        tuple(column.heading for column in columns),
        tuple(column.numeric for column in columns),
        tuple(lines),
    )


def of_texts(
    title: str,
    headings: Sequence[str],
    lines: Sequence[Sequence[str]],
    note: str = "",
    strategies: Sequence[str | None] = (),
) -> Grid:
    """A table of finished texts whose numbers sort by what they begin with; columns that say nothing are left
    out."""
    if lines:
        headings, lines = told_columns(headings, lines)
    owners = strategies or [None] * len(lines)
    filled = [Line(tuple(map(Entry, line)), owner) for line, owner in zip(lines, owners, strict=True)]
    columns = list(zip(*lines, strict=True)) or [() for _ in headings]
    return Grid(title, tuple(headings), tuple(map(_numeric, columns)), tuple(filled), note)


def _numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, but for what is missing."""
    told = [cell for cell in cells if cell not in (DASH, "undefined", ONE_NETWORK)]
    return all(_NUMBER.match(cell) for cell in told)


def of_contest(table: TextTable, strategies: Sequence[str | None] = ()) -> Grid:
    """A table of ``contests``."""
    return of_texts(table.title, table.headings, table.lines, table.note, strategies)
