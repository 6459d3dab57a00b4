"""Runs the cells of a sweep one by one, each on disk before the next begins; goes on where it was cut."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from harness.cell import sweep_file
from harness.cell.cell import ZOO_PREFIX, Cell
from harness.cell.sweep_file import Sweep
from harness.machine.failures import says_disk_full
from harness.machine.stopping import Stop, stop_on_signals
from harness.machine.terminal import progress_bar
from harness.subject.pins import finished
from harness.subject.prediction import predict
from harness.subject.prepare import prepare
from harness.sweep.cluster.driver import Pool, run_on
from harness.sweep.elsewhere import preparable
from harness.sweep.lock import only_sweep_in
from harness.sweep.process import WORKER, TurnGroup, run_in_worker
from harness.sweep.row import Summary, but_for_batch, done_rows, line_of, skip_cell, sound_row
from harness.sweep.turns import failed_turns, groups, is_of_this_machine, tell_of_turns, time_group, waiting
from harness.weights import zoo
from pardec.errors import UserError
from pardec.files import remove_partials
from reports.escape import terminal
from reports.fitting import DASH, print_fitting
from results.schema import Row
from results.store import ResultStore

Finish = Callable[[Cell], Cell]
"""From a cell to the same with everything filled in that it leaves open, and its files pinned."""
_ALL_MARKS = f"{ZOO_PREFIX}{zoo.MARKS}/"


def sweep_cells(
    file_or_name: str,
    select: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    max_images: int | None = None,
    also: Sequence[str] = (),
    finish: Finish = finished,
) -> Sweep:
    """The sweep of a file with every cell checked and pinned; UserError before anything is computed.

    max_images: generate at most so many images per cell, once. also: cells beside those of the file. finish:
    ``foreseen`` where the cells run on other machines.
    """
    sweep = sweep_file.load(file_or_name, overrides, also)
    if max_images is not None:
        sweep = sweep_file.once(sweep, max_images)
    cells: Sequence[Cell] = each_mark(sweep.cells)
    if cells != sweep.cells and all(cell.is_anchor for cell in cells):
        raise UserError(
            f"{sweep_file.named(file_or_name)}: no network of its marks stands; see: pardec train"
        )
    if select is not None:
        cells = sweep_file.select(cells, select, finished=False)
    checked = [finished_of(file_or_name, cell, finish) for cell in cells]
    if select is not None:
        checked = sweep_file.select(checked, select)
    return dataclasses.replace(sweep, cells=tuple({cell.key: cell for cell in checked}.values()))


def finished_of(file_or_name: str, cell: Cell, finish: Finish = finished) -> Cell:
    """The finished cell of a sweep; its UserError names both."""
    try:
        return finish(cell)
    except UserError as error:
        where = f"{sweep_file.named(file_or_name)}, cell '{cell.describe()}'"
        raise UserError(f"{where}: {error}") from None


def each_mark(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells, those of ``zoo/marks/NAME-*`` once for every mark of the run that stands."""
    found: list[Cell] = []
    for cell in cells:
        run = cell.network.removeprefix(_ALL_MARKS).removesuffix("-*")
        if cell.network != f"{_ALL_MARKS}{run}-*":
            found.append(cell)
            continue
        found += (dataclasses.replace(cell, network=ZOO_PREFIX + name) for name in zoo.marks(run, cell.zoo))
    return tuple(found)


def dry_run(
    sweep: Sweep, console: Console | None = None, takes: Callable[[Cell], object] | None = None
) -> None:
    """The cells, their keys, steps and predicted memory, as a table.

    takes: what a cell takes of the machine that it is sent to, where it is sent to one.
    """
    texts = ("cell", "setting") if takes is None else ("cell", "takes", "setting")
    numbers = ("steps", "batch", "images", "weights MB", "cache MB")
    lines = []
    for cell in sweep.cells:
        if cell.is_anchor:
            lines.append([*_names(cell, cell.label, takes), DASH, DASH, str(cell.images), DASH, DASH])
            continue
        prepared = prepare(preparable(cell))
        memory = predict(prepared)
        sizes = [f"{size / 1e6:.1f}" for size in (memory.weight_bytes, memory.cache_bytes)]
        counts = [prepared.plan([0]).steps_in_words(), str(cell.batch), str(cell.images)]
        lines.append([*_names(cell, cell.describe(), takes), *counts, *sizes])
    count = len(sweep.cells)
    title = terminal(f"{sweep.name}: {count} cell{'' if count == 1 else 's'}")
    print_fitting(console or Console(), (*texts, *numbers), lines, right=numbers, title=title)


def _names(cell: Cell, setting: str, takes: Callable[[Cell], object] | None) -> list[str]:
    return [cell.key, *([] if takes is None else [str(takes(cell))]), setting]


def run_sweep(
    sweep: Sweep, folder: Path, command: Sequence[str] = WORKER, pool: Pool | None = None
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
            return run_on(pool, sweep, store, stop, bar)
        summary = _run_cells(sweep, store, stop, bar, command)
        _time_in_turn(sweep, store, summary, stop, bar, command)
    return summary


def _run_cells(
    sweep: Sweep, store: ResultStore, stop: Stop, bar: Progress, command: Sequence[str]
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
    sweep: Sweep, store: ResultStore, summary: Summary, stop: Stop, bar: Progress, command: Sequence[str]
) -> None:
    """The cells of each group once more, unless they have been; their rows replace those of the summary."""
    rows = {row.cell: row for row in summary.rows}
    for group in groups(sweep.cells, sweep.in_turn):
        for cells in waiting(group, rows):
            if not is_of_this_machine(rows[cells[0].key]):
                continue
            if stop.requested:
                summary.untimed += 1
                summary.interrupted = True
                continue
            task = bar.add_task(f"{len(cells)} cells in turn", total=None)
            timed = TurnGroup(cells, sweep.rounds, sweep.processes)
            found, why = time_group(timed, rows, store, lambda share, doing: None, command)
            rows |= {row.cell: row for row in found}
            bar.remove_task(task)
            tell_of_turns(cells, why, bar)
            if why is not None:
                summary.failed_turns.append(failed_turns(cells, rows))
    summary.rows = list(rows.values())


def _run_cell(cell: Cell, store: ResultStore, show: Any, command: Sequence[str]) -> Row:
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    log = store.artifact(cell.key, ".log")
    with store.writing():
        outcome = run_in_worker(cell, store.folder, log, show, command)
    row = sound_row(cell, outcome, started_at)
    if row.status == "ok":
        log.unlink(missing_ok=True)
    return store.append(row)
