"""Runs the cells of a sweep on other machines: who is sent what, what comes back, and who is tried again.

The driver, which holds the folder of results, alone writes rows; a row and the files it names are on disk
before its cell counts as done. A cell that fails is a result and stays one; a cell whose machine is lost, is
recorded as such and sent once more. How machines are reached is the pool's business (``ray_pool``).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, Protocol

from rich.progress import Progress

from harness.cell.cell import Cell
from harness.cell.sweep_file import Sweep
from harness.machine.stopping import Stop
from harness.sweep import turns
from harness.sweep.process import Outcome
from harness.sweep.row import Summary, but_for_batch, done_rows, line_of, make_row, skip_cell, sound_row
from pardec.files import write_whole
from results.environments import environment_keys
from results.schema import Row
from results.store import ResultStore

TRIES = 2
"""How often a cell is sent before the loss of its machine is its result."""
PATIENCE_S = 60.0
"""How long nothing may run, and nothing be able to, before what waits is left."""
_POLL_S = 0.5
_NOWHERE = {"environment": None}
"""Measured of a cell that ran nowhere, or nobody knows where: not the driver's environment."""


@dataclass(frozen=True)
class Task:
    """A cell to be measured, or, with ``rounds``, cells to be timed in turn by so many processes."""

    cells: tuple[Cell, ...]
    rounds: int | None = None
    machine: str | None = None
    """Where to run it; None for any that has room."""
    processes: int = 1
    tries: int = 1
    chosen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of cells to be timed: as ``TurnGroup.chosen``."""


@dataclass(frozen=True)
class Delivery:
    """What a machine sends back: the outcome, and the content of the files of ``artifacts`` by name."""

    outcome: Outcome
    started_at: str
    """ISO 8601, UTC, by the machine's clock; empty where it never began."""
    machine: str
    files: dict[str, bytes]


@dataclass(frozen=True)
class Lost:
    """The machine, or the process on it, went away with its task."""

    reason: str


_GONE = Lost("no machine of the environment that ran these cells is left")


class Pool(Protocol):
    """Machines that run tasks. Everything is called from one thread."""

    def could_run(self, task: Task) -> bool:
        """Whether one of the machines there are, were it free, has what the task needs."""

    def has_room(self, task: Task) -> bool:
        """Whether the task would begin now."""

    def submit(self, task: Task) -> int:
        """Send a task; a number to know it by."""

    def wait(self, timeout_s: float) -> list[tuple[int, Delivery | Lost]]:
        """Tasks that have ended, after at most this time."""


@dataclass(frozen=True)
class _Sent:
    task: Task
    started_at: str
    since_s: float
    """By the driver's monotonic clock."""


def run_on(
    pool: Pool,
    sweep: Sweep,
    store: ResultStore,
    stop: Stop,
    bar: Progress,
    patience_s: float = PATIENCE_S,
) -> Summary:
    """Run what has no ok row yet on the machines of ``pool``, then time in turn what ran on one of them.

    Where no machine that is left can run what waits, that is left for the next start.
    """
    run = _Run(pool, sweep, store, stop, bar, patience_s)
    run.measure()
    run.time_in_turn()
    return run.summary()


@dataclass
class _Run:
    pool: Pool
    sweep: Sweep
    store: ResultStore
    stop: Stop
    bar: Progress
    patience_s: float
    rows: dict[str, Row] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)
    """Cell -> the machine that ran it in this run."""
    found_done: int = 0
    short_of_memory: dict[str, int] = field(default_factory=dict)
    failed_turns: list[Row] = field(default_factory=list)
    untimed: int = 0

    def summary(self) -> Summary:
        left = sum(cell.key not in self.rows for cell in self.sweep.cells)
        return Summary(
            rows=[self.rows[cell.key] for cell in self.sweep.cells if cell.key in self.rows],
            ungated=frozenset(cell.key for cell in self.sweep.cells if not cell.gated),
            skipped=self.found_done,
            left=left,
            untimed=self.untimed,
            failed_turns=self.failed_turns,
            interrupted=self.stop.requested and left + self.untimed > 0,
        )

    def measure(self) -> None:
        """Every cell by itself."""
        done = done_rows(self.store)
        self.rows = {cell.key: done[cell.key] for cell in self.sweep.cells if cell.key in done}
        self.found_done = len(self.rows)
        waiting = [Task((cell,)) for cell in self.sweep.cells if cell.key not in self.rows]
        bar_task = self.bar.add_task(self.sweep.name, total=len(self.sweep.cells))

        def keep(sent: _Sent, arrival: Delivery | Lost) -> Task | None:
            again = self._keep(sent, arrival)
            self.bar.update(bar_task, completed=len(self.rows))
            return again

        self._work(waiting, keep)
        self.bar.remove_task(bar_task)

    def time_in_turn(self) -> None:
        """The cells of each group and environment once more, together on a machine of that environment.

        The machines of rows of earlier runs are not known: their times are kept if they turn out to come
        from the rows' environment.
        """
        waiting = []
        for group in turns.groups(self.sweep.cells, self.sweep.in_turn):
            for cells in turns.waiting(group, self.rows):
                chosen = turns.chosen_of(self.rows[cell.key] for cell in cells)
                tasks = [
                    Task(cells, self.sweep.rounds, machine, self.sweep.processes, chosen=chosen)
                    for machine in self._homes(cells)
                ]
                task = next(filter(self.pool.could_run, tasks), None)
                if task is not None:
                    waiting.append(task)
                elif self.stop.requested:
                    self.untimed += 1
                else:
                    self._record(cells, _GONE)

        def keep(sent: _Sent, arrival: Delivery | Lost) -> None:
            self._record(sent.task.cells, arrival)

        self._work(waiting, keep)
        if self.stop.requested:
            self.untimed += len(waiting)
            return
        for task in waiting:
            self._record(task.cells, _GONE)

    def _homes(self, cells: Sequence[Cell]) -> Sequence[str | None]:
        """Machines that ran cells in the environment of these, those first that ran most of these."""
        here = environment_keys(self.rows[cells[0].key])
        alike = [
            machine for cell, machine in self.machines.items() if environment_keys(self.rows[cell]) == here
        ]
        ran = [self.machines.get(cell.key) for cell in cells]
        return sorted(dict.fromkeys(alike), key=ran.count, reverse=True) or [None]

    def _work(self, waiting: list[Task], keep: Callable[[_Sent, Delivery | Lost], Task | None]) -> None:
        """Send what waits as machines have room, and keep what comes back; a task that keep returns waits."""
        running: dict[int, _Sent] = {}
        idle_since = time.monotonic()
        while running or (waiting and not self.stop.requested):
            while not self.stop.requested and (task := self._next(waiting)) is not None:
                running[self.pool.submit(task)] = _Sent(task, _now(), time.monotonic())
            if not running and waiting and not any(map(self.pool.could_run, waiting)):
                if time.monotonic() - idle_since > self.patience_s:
                    self.bar.console.print(f"no machine is left for {len(waiting)} cells")
                    return
            elif running:
                idle_since = time.monotonic()
            for number, arrival in self.pool.wait(_POLL_S):
                again = keep(running.pop(number), arrival)
                if again is not None:
                    waiting.insert(0, again)

    def _next(self, waiting: list[Task]) -> Task | None:
        """Takes the first task that could begin from those that wait; skips larger batches of an OOM."""
        for place, task in enumerate(list(waiting)):
            smaller = self.short_of_memory.get(but_for_batch(task.cells[0]))
            if task.rounds is None and smaller is not None and smaller < task.cells[0].batch:
                waiting.remove(task)
                why = f"batch {smaller} of the same cell ran out of memory"
                self._add(task.cells[0], skip_cell(task.cells[0], self.store, why, _NOWHERE))
                return self._next(waiting)
            if self.pool.has_room(task):
                return waiting.pop(place)
        return None

    def _keep(self, sent: _Sent, arrival: Delivery | Lost) -> Task | None:
        """Record what came of a cell; the task to send again where its machine was lost."""
        (cell,) = sent.task.cells
        if isinstance(arrival, Lost):
            outcome = Outcome("error", arrival.reason, dict(_NOWHERE), time.monotonic() - sent.since_s)
            row = self.store.append(make_row(cell, outcome, sent.started_at))
            if sent.task.tries < TRIES:
                text = f"{cell.describe()}: {arrival.reason}; it is sent once more"
                self.bar.console.print(text, highlight=False, soft_wrap=True, markup=False)
                return replace(sent.task, tries=sent.task.tries + 1)
        else:
            self._keep_files(arrival)
            self.machines[cell.key] = arrival.machine
            started_at = arrival.started_at or sent.started_at
            row = self.store.append(sound_row(cell, arrival.outcome, started_at, _NOWHERE))
        if row.status == "oom":
            others = but_for_batch(cell)
            self.short_of_memory[others] = min(cell.batch, self.short_of_memory.get(others, cell.batch))
        self._add(cell, row)
        return None

    def _add(self, cell: Cell, row: Row) -> None:
        self.rows[cell.key] = row
        line = line_of(row, cell, len(self.rows), len(self.sweep.cells))
        self.bar.console.print(line, highlight=False, soft_wrap=True)

    def _record(self, cells: Sequence[Cell], arrival: Delivery | Lost) -> None:
        """Record what came of timing cells in turn."""
        if isinstance(arrival, Lost):
            lost = f"timing in turn: {arrival.reason}"
            rows, why = turns.give_up(cells, self.rows, lost, self.store)
        else:
            self._keep_files(arrival)
            rows, why = turns.record(cells, self.rows, arrival.outcome, self.store)
        self.rows |= {row.cell: row for row in rows}
        turns.tell_of_turns(cells, why, self.bar)
        if why is not None:
            self.failed_turns.append(turns.failed_turns(cells, self.rows))

    def _keep_files(self, delivery: Delivery) -> None:
        for name, content in delivery.files.items():
            write_whole(self.store.artifacts / name, partial(_put, content=content))


def _put(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
