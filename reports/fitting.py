"""Tables on a terminal: no number is cut, texts go over several lines, columns that don't fit come below."""

import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.escape import terminal

DASH = "–"
"""What isn't there."""
_LONG = 20
"""Cells from which a column of texts may go over several lines."""
_NARROWEST = 14
"""How far such a column shrinks, unless a word of it is longer."""
_WIDEST_WORD = 24
_NUMBER = re.compile(r"[-+–−±<>~]?\s*[\d.]|–$|$")
_FRAME = 3
"""Cells that a column takes besides its content; the last line takes one more."""


@dataclass(frozen=True)
class _Column:
    """A column as wide as it would be, and as narrow as it may become."""

    at: int
    heading: str
    natural: int
    least: int
    right: bool

    @property
    def folds(self) -> bool:
        return self.least < self.natural


def told_columns(
    headings: Sequence[str], lines: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Headings and lines without the columns in which no line says anything; the first stays."""
    kept = [at for at in range(len(headings)) if at == 0 or any(line[at] not in ("", DASH) for line in lines)]
    return tuple(headings[at] for at in kept), tuple(tuple(line[at] for at in kept) for line in lines)


def print_fitting(
    console: Console,
    headings: Sequence[str],
    lines: Sequence[Sequence[str | Text]],
    *,
    keys: int = 1,
    right: Collection[str] = (),
    title: Text | None = None,
    ends: Collection[int] = (),
    styles: Sequence[str | None] = (),
) -> None:
    """Print a table in blocks of columns that fit the terminal; off a terminal, uncut as one.

    keys: how many first columns every block repeats. right: headings of columns set to the right. ends:
    lines that end a section. styles: of every line.
    """
    texts = [[cell if isinstance(cell, Text) else terminal(cell) for cell in line] for line in lines]
    columns = [
        _measured(at, heading, [line[at].plain for line in texts], heading in right, console.is_terminal)
        for at, heading in enumerate(headings)
    ]
    blocks = _blocks(columns, keys, console.width) if console.is_terminal else [columns]
    console.width = max(console.width, *map(_width, blocks))
    for number, block in enumerate(blocks):
        table = Table(title=title if number == 0 else None, title_justify="left", header_style="bold")
        for one in block:
            table.add_column(
                terminal(one.heading),
                justify="right" if one.right else "left",
                no_wrap=not one.folds,
                overflow="fold",
                min_width=one.least,
            )
        for at, line in enumerate(texts):
            style = styles[at] if styles else None
            table.add_row(*(line[one.at] for one in block), style=style, end_section=at in ends)
        console.print(table, crop=False)


def _measured(at: int, heading: str, cells: Sequence[str], right: bool, narrow: bool) -> _Column:
    longest = max(map(cell_len, cells), default=0)
    if not narrow:
        natural = max(longest, cell_len(heading))
        return _Column(at, heading, natural, natural, right)
    words = [word for text in (heading, *cells) for word in text.split()]
    if longest > _LONG and not all(_NUMBER.match(cell) for cell in cells):
        least = min(longest, max(_NARROWEST, *(min(cell_len(word), _WIDEST_WORD) for word in words)))
        return _Column(at, heading, max(longest, cell_len(heading)), least, right)
    # Headings go over several lines before anything is moved.
    width = max([longest, *map(cell_len, heading.split())])
    return _Column(at, "\n".join(textwrap.wrap(heading, width)) if heading else "", width, width, right)


def _width(columns: Sequence[_Column]) -> int:
    """Cells that a block takes at least."""
    return 1 + sum(_FRAME + one.least for one in columns)


def _blocks(columns: Sequence[_Column], keys: int, width: int) -> list[list[_Column]]:
    """Columns in blocks of at most ``width`` cells, each of which opens with the keys."""
    blocks = [list(columns[:keys])]
    for column in columns[keys:]:
        if len(blocks[-1]) > keys and _width([*blocks[-1], column]) > width:
            blocks.append(list(columns[:keys]))
        blocks[-1].append(column)
    return blocks
