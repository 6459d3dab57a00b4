"""From a cell and what became of it to the row that is recorded, its line of text, and the sum of a sweep."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape

from harness.cell.cell import APPLIES, RANDOM, Cell
from harness.machine.environment import environment
from harness.subject.tokenizers import zoo_tokenizer
from harness.sweep.process import Outcome
from harness.sweep.turns import ALONE, is_of_this_machine
from pardec.errors import one_line
from results.schema import FIELDS, Attempt, Row, may_be_null, reasons, row_to_json
from results.settings import DECLARED
from results.store import ResultStore
from strategies.decoding import presets


@dataclass
class Summary:
    """What a sweep did: rows by status, and the cells that it found done or left undone."""

    rows: list[Row] = field(default_factory=list)
    """Of all cells of the sweep that have one, those found done included."""
    ungated: frozenset[str] = frozenset()
    """Keys of the cells whose failure the exit status leaves out."""
    skipped: int = 0
    left: int = 0
    untimed: int = 0
    """Groups of cells that an interrupt left without their times in turn."""
    failed_turns: list[Row] = field(default_factory=list)
    """Of each group whose timing in turn failed, the row of a cell, a gated one if there is any."""
    interrupted: bool = False

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if row.status != "ok"]

    @property
    def exit_code(self) -> int:
        """0 when every gated cell is ok, alone and in turn, and at least one cell is; 130 when interrupted.

        Otherwise 1.
        """
        if self.interrupted:
            return 130
        gated = [row for row in (*self.failed, *self.failed_turns) if row.cell not in self.ungated]
        return 1 if gated or self.left or len(self.failed) == len(self.rows) else 0

    def __str__(self) -> str:
        ran = len(self.rows) - self.skipped
        parts = [f"{ran} cell{'' if ran == 1 else 's'} run"]
        if self.skipped:
            parts.append(f"{self.skipped} done before")
        if self.failed:
            parts.append(f"{len(self.failed)} not ok")
        if self.left:
            parts.append(f"{self.left} left")
        if self.untimed:
            parts.append("timing in turn left")
        if self.failed_turns:
            parts.append("timing in turn failed")
        if self.interrupted:
            parts[-1] += "; start again to go on"
        return ("interrupted: " if self.interrupted else "") + ", ".join(parts)


def done_rows(store: ResultStore) -> dict[str, Row]:
    """The ok row of every cell that has one, of several environments this machine's."""
    ok = [row for row in store.rows() if row.status == "ok"]
    return {row.cell: row for row in sorted(ok, key=is_of_this_machine)}


def but_for_batch(cell: Cell) -> str:
    """Equal for cells that differ in nothing but the batch."""
    return dataclasses.replace(cell, batch=1).key


def skip_cell(cell: Cell, store: ResultStore, reason: str, measured: Mapping[str, Any] = {}) -> Row:
    """The recorded row of a cell that is not run. measured: fields that are known all the same."""
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return store.append(make_row(cell, Outcome("skipped", reason, dict(measured), 0.0), started_at))


def make_row(cell: Cell, outcome: Outcome, started_at: str) -> Row:
    """The row of one try: the cell's settings, what the worker measured, and why the rest is null."""
    attempt: Attempt = {
        "started_at": started_at,
        "wall_s": outcome.wall_s,
        "status": outcome.status,
        "reason": outcome.reason,
    }
    settings = {
        "cell": cell.key,
        "status": outcome.status,
        "reason": outcome.reason,
        "attempts": [attempt],
        "settings": cell.settings(),
        "tier": "anchor" if cell.is_anchor else "published" if cell.is_published else "controlled",
        "checkpoint": RANDOM if cell.checkpoint == RANDOM else cell.pins.get("network"),
        "tokenizer": tokenizer_name(cell),
        "steps": cell.steps,
        "images": cell.images,
        "started_at": started_at,
        "wall_s": outcome.wall_s,
    } | as_they_apply(cell)
    values = {"environment": environment()} | settings | outcome.measured
    if values.get("steps_bound") is None:
        values = dict.fromkeys(("steps_least", "steps_most"), values["steps"]) | values
    why = "an anchor decodes nothing" if cell.is_anchor else "not measured"
    if outcome.status != "ok":
        why = f"{outcome.status}: {outcome.reason}"
        return Row(**values | {"unmeasured": reasons(values, why)})
    noted = {} if cell.is_anchor else {"turns": ALONE}
    noted |= dict(values.get("unmeasured") or {})
    return Row(**values | {"unmeasured": reasons(values | {"unmeasured": noted}, why)})


def sound_row(cell: Cell, outcome: Outcome, started_at: str, otherwise: Mapping[str, Any] = {}) -> Row:
    """``make_row``; where what the worker measured makes none, an error that says so.

    otherwise: fields that are known even then.
    """
    try:
        row = make_row(cell, outcome, started_at)
        row_to_json(row)
    except (TypeError, ValueError) as error:
        reason = f"what the worker measured makes no row: {error}"
        return make_row(cell, Outcome("error", reason, dict(otherwise), outcome.wall_s), started_at)
    return row


def as_they_apply(cell: Cell) -> dict[str, Any]:
    """The settings that a row states beside its numbers, null where the cell has no use for them."""
    return {
        name: None if may_be_null(name) and not APPLIES[DECLARED[name].applies](cell) else getattr(cell, name)
        for name, one in FIELDS.items()
        if one.kind == "setting"
    }


def tokenizer_name(cell: Cell) -> str:
    """The tokenizer as a row names it; ``none`` where tokens stay tokens."""
    if not cell.is_published:
        return f"zoo/{zoo_tokenizer(cell)}"
    if cell.tokenizer_checkpoint is None:
        return "none"
    name = presets.preset_info(cell.network).tokenizer
    return f"{name} (random weights)" if cell.tokenizer_checkpoint == RANDOM else name


def line_of(row: Row, cell: Cell, number: int, count: int) -> str:
    """What became of a cell, the ``number``-th of a sweep, on one line of Rich's markup."""
    text = f"\\[{number}/{count}] {escape(cell.describe())}: {row.status}, {row.wall_s or 0:.1f} s"
    if row.status != "ok":
        return f"{text}: {escape(one_line(row.reason or ''))}"
    if row.throughput_images_per_s is not None:
        text += f", {row.throughput_images_per_s:.3g} images/s"
    distance = next((m for name, m in (row.quality or {}).items() if name.startswith("fd_")), None)
    if distance is not None and distance["value"] is not None:
        text += f", Fréchet distance {distance['value']:.3g}"
    return text
