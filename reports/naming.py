"""What rows are called: their label, and what tells them apart from others of that label."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from results.environments import environment_keys
from results.same_setting import differing, told_apart
from results.schema import Row


def natural(label: str) -> tuple[str | int, ...]:
    """Sort key of a label: its numbers by their size."""
    return tuple(int(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+)", label)))


def counted_text(value: float, sign: str = "") -> str:
    """A count: whole, or a mean over images that go at their own pace."""
    return f"{value:{sign},.0f}" if float(value).is_integer() else f"{value:{sign},.2f}"


def counted_steps(row: Row) -> float | None:
    """The steps that may be set beside those of others; None where they follow from a declared acceptance."""
    return row.steps if row.acceptance is None else None


def steps_text(row: Row) -> str:
    """The steps of the row in words."""
    return f"{None if row.steps is None else counted_text(row.steps)} steps"


def series_label(row: Row, rows: Iterable[Row], but_for: Collection[str] = ()) -> str:
    """The row's label, told apart from other series of the same label by what differs at equal steps,
    ``but_for`` aside."""
    names = differing((other for other in rows if other.label == row.label), at_equal=("steps",))
    told = told_apart(row, [name for name in names if name not in but_for])
    return row.label + (f" ({', '.join(told)})" if told else "")


def display_name(row: Row, rows: Iterable[Row] = ()) -> str:
    """Label and steps of a cell, and every setting in which others of its label among ``rows`` differ."""
    if row.tier == "anchor":
        return row.label
    names = differing([row, *(other for other in rows if other.label == row.label)])
    told = told_apart(row, [name for name in names if name != "steps"])
    return ", ".join([row.label, steps_text(row), *told])


def namer(rows: Sequence[Row]) -> Callable[[Row], str]:
    """How to name the rows: by their settings, and by their machine where one cell has several."""
    if len({row.cell for row in rows}) == len(rows):
        return lambda row: display_name(row, rows)

    def named(row: Row) -> str:
        keys = environment_keys(row)
        return f"{display_name(row, rows)}, {keys['hardware']}, torch {keys['torch']}"

    return named
