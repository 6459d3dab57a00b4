"""The cell that somebody names: by its settings, by a sweep and a key, or by the key of a recorded row."""

import dataclasses
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cell import sweep_file
from harness.cell.cell import Cell, normalised
from harness.cell.inline import inline_cell
from harness.cell.recorded import cell_of
from harness.sweep.elsewhere import foreseen
from harness.sweep.sweep import each_mark, finished_of
from pardec.errors import UserError, visible
from results.settings import DECLARED
from results.store import RESULTS, folders_of_rows, recorded_rows
from strategies.decoding import registry


def find_cell(text: str, changes: Mapping[str, Any], results: Path | None) -> Cell:
    """The cell of an inline setting, of a sweep's key, or of a recorded row's key."""
    if "=" in text or text in registry.names():
        return inline_cell(text, changes)
    sweep_name, colon, key = text.rpartition(":")
    if not re.fullmatch(r"[0-9a-f]{1,16}", key):
        raise UserError(f"cell '{text}': expected settings like lpd,steps=10, or a key of hex digits")
    found = _of_sweep(sweep_name, key, changes) if colon else _recorded(key, changes, results)
    if len(found) != 1:
        where = f"sweep '{sweep_name}'" if colon else f"the rows under '{results or RESULTS}'"
        raise UserError(
            f"cell '{text}': {len(found)} cells of {where} have a key that begins so; expected one"
        )
    return found[0]


def _of_sweep(name: str, key: str, changes: Mapping[str, Any]) -> list[Cell]:
    """The cells of a sweep, changed, whose key begins so: as the file gives it, or a dry run with the flags.

    UserError where no cell is found and one can't run here: it may be that one.
    """
    same_key = {one: value for one, value in changes.items() if not DECLARED[one].in_key}
    found: dict[str, Cell] = {}
    failed: UserError | None = None
    for overrides in [same_key] if same_key == changes else [same_key, changes]:
        for cell in each_mark(sweep_file.load(name, overrides).cells):
            try:
                whole = finished_of(name, cell, foreseen)
            except UserError as error:
                failed = failed or error
                continue
            if whole.key.startswith(key):
                # What a finished cell has looked up may not go with the changes.
                changed = normalised(dataclasses.replace(cell, **changes))
                found[changed.key] = changed
    if not found and failed is not None:
        raise UserError(
            f"cell '{name}:{key}': none of the cells that can run here has a key that begins so; {failed}"
        )
    return list(found.values())


def _recorded(key: str, changes: Mapping[str, Any], results: Path | None) -> list[Cell]:
    """The cells of recorded rows."""
    folders = [results] if results else folders_of_rows(RESULTS)
    rows = {row.cell: row for folder in folders for row in recorded_rows(folder) if row.cell.startswith(key)}
    cells = []
    for row in rows.values():
        if row.tier == "anchor":
            raise UserError(f"cell '{row.cell}' is an anchor ({visible(row.label)}): it decodes nothing")
        cell = cell_of(row)
        if cell.key != row.cell:
            print(
                f"cell '{row.cell}': its row is an older one and doesn't tell every setting", file=sys.stderr
            )
        cells.append(normalised(dataclasses.replace(cell, **changes)))
    return cells
