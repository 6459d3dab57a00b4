"""The second pass of a sweep: cells that share a network are timed once more, in turn and by one process."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.progress import Progress as Bar

from harness.cell.cell import Cell
from harness.machine.environment import environment
from harness.sweep.process import Outcome, Progress, TurnGroup, run_turns
from pardec.errors import one_line
from results.environments import agree, environment_keys, keys_of
from results.schema import Row, Turns
from results.settings import DECLARED
from results.store import ResultStore

SHARED = {
    "network": tuple(name for name, one in DECLARED.items() if one.shared),
    "all": tuple(name for name, one in DECLARED.items() if one.shared == "machine"),
}
"""What cells of a group have in common, by the sweep's ``in_turn``."""
ALONE = "not timed in turn: no other cell of the sweep shares its network, dtype, batch and threads"


def groups(cells: Sequence[Cell], in_turn: str = "network") -> list[tuple[Cell, ...]]:
    """Cells that one process times in turn, a group's reference first; cells without company are left out."""
    if in_turn == "none":
        return []
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if not cell.is_anchor:
            shared = json.dumps([getattr(cell, name) for name in SHARED[in_turn]])
            found.setdefault(shared, []).append(cell)
    return [tuple(group) for group in found.values() if len(group) > 1]


def waiting(group: Sequence[Cell], rows: Mapping[str, Row]) -> list[tuple[Cell, ...]]:
    """The cells of a group that are ok, those of each environment by themselves: a ratio needs one machine.

    Without cells that are alone in theirs, and without those that have all been timed beside their first.
    """
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in group:
        if cell.key in rows and rows[cell.key].status == "ok":
            found.setdefault(tuple(environment_keys(rows[cell.key]).values()), []).append(cell)
    return [tuple(cells) for cells in found.values() if len(cells) > 1 and not _done(cells, rows)]


def _done(cells: Sequence[Cell], rows: Mapping[str, Row]) -> bool:
    pairs = [rows[cell.key].turns for cell in cells]
    return all(pair is not None and pair["reference"] == cells[0].key for pair in pairs)


def chosen_of(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Cell -> option -> value, of options left to measurement: what each was measured with at its batch."""
    found = {}
    for row in rows:
        batch = str(row.batch)
        if row.chosen_options and all(batch in values for values in row.chosen_options.values()):
            found[row.cell] = {name: values[batch] for name, values in row.chosen_options.items()}
    return found


def time_group(
    group: TurnGroup,
    rows: Mapping[str, Row],
    store: ResultStore,
    show: Progress,
    command: Sequence[str],
) -> tuple[list[Row], str | None]:
    """As ``record``, of cells that are timed here, each with what its row says was chosen."""
    first = group.cells[0]
    log = store.artifact(f"in-turn-{first.key}", ".log")
    chosen = chosen_of(rows[cell.key] for cell in group.cells)
    with store.writing():
        outcome = run_turns(dataclasses.replace(group, chosen=chosen), store.folder, log, show, command)
    if outcome.status == "ok":
        for cell in group.cells:  # another may have been the first before
            store.artifact(f"in-turn-{cell.key}", ".log").unlink(missing_ok=True)
    return record(group.cells, rows, outcome, store)


def record(
    cells: Sequence[Cell], rows: Mapping[str, Row], outcome: Outcome, store: ResultStore
) -> tuple[list[Row], str | None]:
    """The rows of the cells with what came of timing them in turn, recorded, and why that failed, if it did.

    Times of another environment than the rows' belong to none of them.
    """
    found = outcome.measured.get("turns", {})
    why = None
    if not all(cell.key in found for cell in cells):
        why = f"timing in turn: {outcome.status}: {outcome.reason}"
    timed_in = outcome.measured.get("environment")
    if timed_in is not None:
        here, due = keys_of(cells[0].device, timed_in), environment_keys(rows[cells[0].key])
        if not agree(here, due):
            differing = [f"{key} {here[key]}, not {due[key]}" for key in here if here[key] != due[key]]
            why = f"timing in turn: ran in another environment ({'; '.join(differing)})"
    if why is not None:
        return give_up(cells, rows, why, store)
    return [store.append(_timed(rows[cell.key], found[cell.key])) for cell in cells], None


def give_up(
    cells: Sequence[Cell], rows: Mapping[str, Row], why: str, store: ResultStore
) -> tuple[list[Row], str | None]:
    """As ``record``, where timing the cells in turn failed: times that a row has already are kept."""
    before = [rows[cell.key] for cell in cells]
    return [row if row.turns is not None else store.append(_untimed(row, why)) for row in before], why


def is_of_this_machine(row: Row) -> bool:
    """Whether the row may have been measured here, as far as can be told without torch."""
    return agree(environment_keys(row), keys_of(row.device, environment()))


def _timed(row: Row, turns: Turns) -> Row:
    reasons = {name: reason for name, reason in row.unmeasured.items() if name != "turns"}
    return dataclasses.replace(row, turns=turns, unmeasured=reasons)


def _untimed(row: Row, why: str) -> Row:
    return dataclasses.replace(row, unmeasured=row.unmeasured | {"turns": why})


def tell_of_turns(cells: Sequence[Cell], why: str | None, bar: Bar) -> None:
    """One line of cells timed in turn; why: they were not."""
    text = f"{len(cells)} cells {'' if why is None else 'not '}timed in turn with {cells[0].describe()}"
    if why is not None:
        text += f": {one_line(why)}"
    bar.console.print(escape(text), highlight=False, soft_wrap=True)


def failed_turns(cells: Sequence[Cell], rows: Mapping[str, Row]) -> Row:
    """The row by which a summary tells that timing these cells failed: a gated one's, if there is any."""
    return rows[min(cells, key=lambda cell: not cell.gated).key]
