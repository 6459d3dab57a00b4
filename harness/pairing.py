"""The second pass of a sweep: cells that share a network are timed once more, in turn and by one process."""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from harness.cell import Cell
from harness.executors import Progress, Turns, run_in_worker
from results.schema import Row
from results.store import ResultStore

SAME_MACHINE = ("dtype", "products", "compile", "cuda_graphs", "device", "threads", "batch", "zoo", "plugin")
SAME_NETWORK = ("network", "checkpoint", "data", *SAME_MACHINE)
SHARED = {"network": SAME_NETWORK, "all": SAME_MACHINE}
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


def waiting(group: Sequence[Cell], rows: Mapping[str, Row]) -> tuple[Cell, ...]:
    """The cells of a group that are ok; none where each has been timed beside the first, or one is left."""
    ok = [cell for cell in group if cell.key in rows and rows[cell.key].status == "ok"]
    if len(ok) < 2:
        return ()
    pairs = [rows[cell.key].paired for cell in ok]
    done = all(pair is not None and pair["reference"] == ok[0].key for pair in pairs)
    return () if done else tuple(ok)


def pair_rows(
    turns: Turns,
    rows: Mapping[str, Row],
    store: ResultStore,
    show: Progress,
    command: Sequence[str],
) -> list[Row]:
    """The rows of the cells with their times in turn, recorded; without them, and why, where that fails."""
    first = turns.cells[0]
    log = store.artifact(f"in-turn-{first.key}", ".log")
    with store.writing():
        outcome = run_in_worker(first, store.folder, log, show, command, turns)
    if outcome.status == "ok":
        for cell in turns.cells:  # another may have been the first before
            store.artifact(f"in-turn-{cell.key}", ".log").unlink(missing_ok=True)
    found = outcome.measured.get("paired", {})
    why = f"timing in turn: {outcome.status}: {outcome.reason}"
    return [store.append(_with_pair(rows[cell.key], found.get(cell.key), why)) for cell in turns.cells]


def _with_pair(row: Row, paired: object, why: str) -> Row:
    reasons = {name: reason for name, reason in row.unmeasured.items() if name != "paired"}
    if paired is None:
        return dataclasses.replace(row, paired=None, unmeasured=reasons | {"paired": why})
    return dataclasses.replace(row, paired=paired, unmeasured=reasons)  # type: ignore[arg-type]
