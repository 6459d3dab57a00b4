"""The second pass of a sweep: cells that share a network are timed once more, in turn and by one process."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.progress import Progress as Bar

from harness.cell.cell import Cell
from harness.machine.environment import environment
from harness.sweep.process import Outcome, Progress, TurnGroup, run_turns
from pardec.errors import one_line
from results.environments import agree, environment_keys, keys_of
from results.schema import Row
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


def time_group(
    group: TurnGroup,
    rows: Mapping[str, Row],
    store: ResultStore,
    show: Progress,
    command: Sequence[str],
) -> list[Row]:
    """The rows of the cells with their times in turn, recorded; without them, and why, where that fails."""
    first = group.cells[0]
    log = store.artifact(f"in-turn-{first.key}", ".log")
    with store.writing():
        outcome = run_turns(group, store.folder, log, show, command)
    if outcome.status == "ok":
        for cell in group.cells:  # another may have been the first before
            store.artifact(f"in-turn-{cell.key}", ".log").unlink(missing_ok=True)
    return record(group.cells, rows, outcome, store)


def record(cells: Sequence[Cell], rows: Mapping[str, Row], outcome: Outcome, store: ResultStore) -> list[Row]:
    """The rows of the cells with what came of timing them in turn, recorded.

    Times of another environment than the rows' belong to none of them.
    """
    found = outcome.measured.get("turns", {})
    why = f"timing in turn: {outcome.status}: {outcome.reason}"
    timed_in = outcome.measured.get("environment")
    if timed_in is not None:
        here, due = keys_of(cells[0].device, timed_in), environment_keys(rows[cells[0].key])
        if not agree(here, due):
            differing = [f"{key} {here[key]}, not {due[key]}" for key in here if here[key] != due[key]]
            found, why = {}, f"timing in turn: ran in another environment ({'; '.join(differing)})"
    return [store.append(_with_turns(rows[cell.key], found.get(cell.key), why)) for cell in cells]


def give_up(cells: Sequence[Cell], rows: Mapping[str, Row], why: str, store: ResultStore) -> list[Row]:
    """The rows of the cells, recorded as not timed in turn for this reason."""
    return [store.append(_with_turns(rows[cell.key], None, why)) for cell in cells]


def is_of_this_machine(row: Row) -> bool:
    """Whether the row may have been measured here, as far as can be told without torch."""
    return agree(environment_keys(row), keys_of(row.device, environment()))


def _with_turns(row: Row, turns: object, why: str) -> Row:
    reasons = {name: reason for name, reason in row.unmeasured.items() if name != "turns"}
    if turns is None:
        return dataclasses.replace(row, turns=None, unmeasured=reasons | {"turns": why})
    return dataclasses.replace(row, turns=turns, unmeasured=reasons)  # type: ignore[arg-type]


def tell_of_turns(cells: Sequence[Cell], first: Row, bar: Bar) -> None:
    """One line of cells timed in turn; first: the row of the first of them."""
    text = f"{len(cells)} cells {'' if first.turns else 'not '}timed in turn with {cells[0].describe()}"
    if not first.turns:
        text += f": {one_line(first.unmeasured['turns'])}"
    bar.console.print(escape(text), highlight=False, soft_wrap=True)


def failed_turns(cells: Sequence[Cell], rows: Mapping[str, Row]) -> list[Row]:
    """The row by which a summary tells that these cells have no times in turn; none where they have."""
    untimed = [cell for cell in sorted(cells, key=lambda cell: not cell.gated) if not rows[cell.key].turns]
    return [rows[cell.key] for cell in untimed[:1]]
