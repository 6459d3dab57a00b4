"""Runs the cells of a sweep in turn, each on disk before the next begins; goes on where it was cut."""

import dataclasses
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.cell import sweep_file
from harness.cell.cell import APPLIES, RANDOM, Cell
from harness.cell.sweep_file import Sweep
from harness.commands.common import progress_bar
from harness.machine.environment import environment
from harness.machine.failures import says_disk_full
from harness.machine.stopping import Stop, stop_on_signals
from harness.sweep import turns as pairing
from harness.sweep.process import WORKER, Outcome, Turns, run_in_worker
from pardec.errors import UserError, one_line
from pardec.files import remove_partials
from results.schema import FIELDS, Attempt, Row, may_be_null, reasons, row_to_json
from results.settings import DECLARED
from results.store import ResultStore
from strategies.decoding import presets

if TYPE_CHECKING:
    from rich.progress import Progress

    from harness.sweep.cluster.driver import Pool

LOCK = ".sweep.lock"
"""In a folder of results, held by the sweep that runs in it."""


def sweep_cells(
    file_or_name: str,
    select: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    max_images: int | None = None,
) -> Sweep:
    """The sweep of a file with every cell checked and pinned; UserError before anything is computed.

    max_images: generate at most so many images per cell, once.
    """
    from harness.subject.prepare import finished

    sweep = sweep_file.load(file_or_name, overrides)
    if max_images is not None:
        sweep = sweep_file.once(sweep, max_images)
    cells: Sequence[Cell] = sweep.cells
    if select is not None:
        cells = sweep_file.select(cells, select, finished=False)
    checked = []
    for cell in cells:
        try:
            checked.append(finished(cell))
        except UserError as error:
            where = f"sweep file '{sweep_file.find(file_or_name)}', cell '{cell.describe()}'"
            raise UserError(f"{where}: {error}") from None
    if select is not None:
        checked = sweep_file.select(checked, select)
    return dataclasses.replace(sweep, cells=tuple({cell.key: cell for cell in checked}.values()))


def dry_run(sweep: Sweep, console: Console | None = None) -> None:
    """The cells, their keys, steps and predicted memory, as a table."""
    from harness.subject.prepare import predict, prepare

    table = Table(title=f"{sweep.name}: {len(sweep.cells)} cells", title_justify="left")
    for heading in ("cell", "setting", "steps", "batch", "images", "weights MB", "cache MB"):
        table.add_column(heading, justify="left" if heading in ("cell", "setting") else "right", no_wrap=True)
    for cell in sweep.cells:
        if cell.is_anchor:
            table.add_row(cell.key, escape(cell.label), "–", "–", str(cell.images), "–", "–")
            continue
        memory = predict(prepare(cell))
        table.add_row(
            cell.key,
            escape(cell.describe()),
            str(cell.steps),
            str(cell.batch),
            str(cell.images),
            f"{memory.weight_bytes / 1e6:.1f}",
            f"{memory.cache_bytes / 1e6:.1f}",
        )
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 140)
    console.print(table)


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


def run_sweep(
    sweep: Sweep, folder: Path, command: Sequence[str] = WORKER, pool: "Pool | None" = None
) -> Summary:
    """Run what has no ok row in ``folder`` yet, then time in turn what belongs together.

    pool: the machines that run the cells; without one, this machine runs one after the other. The first
    SIGINT stops after the cells that run, a second now; SIGTERM and SIGHUP, a batch system's, raise
    SystemExit now. Raises UserError where the folder can't be written or another sweep runs in it.
    """
    store = ResultStore(folder)
    with only_sweep_in(store), stop_on_signals() as stop, progress_bar() as bar:
        with store.writing():
            remove_partials(folder, deep=True)
        if pool is not None:
            from harness.sweep.cluster.driver import run_on

            return run_on(pool, sweep, store, stop, bar)
        summary = _run_cells(sweep, store, stop, bar, command)
        _time_in_turn(sweep, store, summary, stop, bar, command)
    return summary


def _run_cells(
    sweep: Sweep, store: ResultStore, stop: "Stop", bar: "Progress", command: Sequence[str]
) -> Summary:
    """Each cell by itself, in the order of the sweep."""
    summary = Summary(ungated=frozenset(cell.key for cell in sweep.cells if not cell.gated))
    done = done_rows(store)
    short_of_memory: dict[str, int] = {}
    task = bar.add_task(sweep.name, total=len(sweep.cells))
    for number, cell in enumerate(sweep.cells):
        if cell.key in done:
            summary.rows.append(done[cell.key])
            summary.skipped += 1
        elif stop.requested:
            summary.left += 1
        else:

            def show(share: float, doing: str, at: int = number, name: str = cell.describe()) -> None:
                bar.update(task, completed=at + share, description=f"{escape(name)}: {doing}")

            others = but_for_batch(cell)
            smaller = short_of_memory.get(others)
            if smaller is not None and smaller < cell.batch:
                row = skip_cell(cell, store, f"batch {smaller} of the same cell ran out of memory")
            else:
                row = _run_cell(cell, store, show, command)
            if row.status == "oom":
                short_of_memory[others] = min(cell.batch, short_of_memory.get(others, cell.batch))
            summary.rows.append(row)
            bar.console.print(
                line_of(row, cell, number + 1, len(sweep.cells)), highlight=False, soft_wrap=True
            )
            if row.status == "error" and says_disk_full(row.reason or ""):
                raise UserError(
                    f"cell '{cell.describe()}' could not write: {row.reason}; the rows in '{store.folder}' "
                    "are whole: make room and start again to go on"
                )
        bar.update(task, completed=number + 1)
    summary.interrupted = stop.requested and summary.left > 0
    return summary


def _time_in_turn(
    sweep: Sweep, store: ResultStore, summary: Summary, stop: "Stop", bar: "Progress", command: Sequence[str]
) -> None:
    """The cells of each group once more, unless they have been; their rows replace those of the summary."""
    rows = {row.cell: row for row in summary.rows}
    for group in pairing.groups(sweep.cells, sweep.in_turn):
        for cells in pairing.waiting(group, rows):
            if not pairing.is_of_this_machine(rows[cells[0].key]):
                continue
            if stop.requested:
                summary.untimed += 1
                summary.interrupted = True
                continue
            task = bar.add_task(f"{len(cells)} cells in turn", total=None)
            turns = Turns(cells, sweep.rounds, sweep.processes)
            for row in pairing.pair_rows(turns, rows, store, lambda share, doing: None, command):
                rows[row.cell] = row
            bar.remove_task(task)
            tell_of_turns(cells, rows[cells[0].key], bar)
            summary.failed_turns += failed_turns(cells, rows)
    summary.rows = list(rows.values())


def tell_of_turns(cells: Sequence[Cell], first: Row, bar: "Progress") -> None:
    """One line of cells timed in turn; first: the row of the first of them."""
    text = f"{len(cells)} cells {'' if first.paired else 'not '}timed in turn with {cells[0].describe()}"
    if not first.paired:
        text += f": {one_line(first.unmeasured['paired'])}"
    bar.console.print(escape(text), highlight=False, soft_wrap=True)


def failed_turns(cells: Sequence[Cell], rows: Mapping[str, Row]) -> list[Row]:
    """The row by which a summary tells that these cells have no times in turn; none where they have."""
    untimed = [cell for cell in sorted(cells, key=lambda cell: not cell.gated) if not rows[cell.key].paired]
    return [rows[cell.key] for cell in untimed[:1]]


def done_rows(store: ResultStore) -> dict[str, Row]:
    """The ok row of every cell that has one, of several environments this machine's."""
    ok = [row for row in store.rows() if row.status == "ok"]
    return {row.cell: row for row in sorted(ok, key=pairing.is_of_this_machine)}


def but_for_batch(cell: Cell) -> str:
    """Equal for cells that differ in nothing but the batch."""
    return dataclasses.replace(cell, batch=1).key


def skip_cell(cell: Cell, store: ResultStore, reason: str, measured: Mapping[str, Any] = {}) -> Row:
    """The recorded row of a cell that is not run. measured: fields that are known all the same."""
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return store.append(make_row(cell, Outcome("skipped", reason, dict(measured), 0.0), started_at))


def _run_cell(cell: Cell, store: ResultStore, show: Any, command: Sequence[str]) -> Row:
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    log = store.artifact(cell.key, ".log")
    with store.writing():
        outcome = run_in_worker(cell, store.folder, log, show, command)
    try:
        row = make_row(cell, outcome, started_at)
        row_to_json(row)
    except (TypeError, ValueError) as error:
        unsound = Outcome("error", f"what the worker measured makes no row: {error}", {}, outcome.wall_s)
        row = make_row(cell, unsound, started_at)
    if row.status == "ok":
        log.unlink(missing_ok=True)
    return store.append(row)


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
    noted = {} if cell.is_anchor else {"paired": pairing.ALONE}
    noted |= dict(values.get("unmeasured") or {})
    return Row(**values | {"unmeasured": reasons(values | {"unmeasured": noted}, why)})


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
        return "zoo/tokenizer"
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


@contextmanager
def only_sweep_in(store: ResultStore) -> Iterator[None]:
    """Hold the folder's lock; the kernel drops it with the process."""
    with store.writing():
        descriptor = os.open(store.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another sweep is running in '{store.folder}': wait for it, or choose another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)
