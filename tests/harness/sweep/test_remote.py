"""Cells on other machines, without any: what is sent once more, what is recorded, what is never lost."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cell.cell import Cell
from harness.cell.sweep_file import Sweep
from harness.machine.stopping import Stop
from harness.machine.terminal import progress_bar
from harness.sweep import turns
from harness.sweep.cluster import on_node, ray_pool
from harness.sweep.cluster.driver import Delivery, Lost, Task, run_on
from harness.sweep.cluster.on_node import describe, run_task
from harness.sweep.cluster.ray_pool import Need, Node, choose
from harness.sweep.lock import only_sweep_in
from harness.sweep.process import Outcome
from harness.sweep.sweep import run_sweep
from pardec.errors import UserError
from results.store import ResultStore, load_rows

STAND_IN = (sys.executable, str(Path(__file__).parents[1] / "stand_in_worker.py"))
XEON = {"host_cpu": "Xeon", "gpu": None, "torch": "2.9.0"}
EPYC = XEON | {"host_cpu": "EPYC"}
OUTCOME = Outcome("ok", None, {}, 1.0)
Answer = Callable[[Task], Delivery | Lost]


def cell(label: str = "ok", seed: int = 0, **more) -> Cell:
    return Cell("lpd", label=label, seed=seed, threads=1, timeout_s=30.0, **more)


def sweep_of(*cells: Cell, in_turn: str = "none") -> Sweep:
    return Sweep("test", "test", cells, in_turn=in_turn)


def delivered(status: str = "ok", environment=XEON, machine: str = "one", **measured) -> Delivery:
    reason = None if status == "ok" else f"on purpose: {status}"
    outcome = Outcome(status, reason, {"environment": environment} | measured, 1.0)
    return Delivery(outcome, "2026-01-01T00:00:00.000+00:00", machine, {})


class FakePool:
    """Machines that answer by a function of the task, the oldest task first."""

    def __init__(self, answer: Answer, room: int = 2, after: Callable[[int], None] = lambda count: None):
        self.answer, self.room, self.after = answer, room, after
        self.running: dict[int, Task] = {}
        self.sent: list[Task] = []
        self.most = 0

    def could_run(self, task: Task) -> bool:
        return self.room > 0

    def has_room(self, task: Task) -> bool:
        return len(self.running) < self.room

    def submit(self, task: Task) -> int:
        self.sent.append(task)
        self.running[len(self.sent)] = task
        self.most = max(self.most, len(self.running))
        return len(self.sent)

    def wait(self, timeout_s: float) -> list[tuple[int, Delivery | Lost]]:
        if not self.running:
            return []
        number = next(iter(self.running))
        self.after(number)
        return [(number, self.answer(self.running.pop(number)))]


def run(pool: FakePool, sweep: Sweep, folder: Path, stop: Stop | None = None):
    with progress_bar() as bar:
        return run_on(pool, sweep, ResultStore(folder), stop or Stop(), bar, patience_s=0.05)


def test_machines_are_kept_busy_and_every_row_is_that_of_its_machine(tmp_path):
    cells = [cell(seed=seed) for seed in range(5)]
    pool = FakePool(lambda task: delivered(environment=EPYC if task.cells[0].seed % 2 else XEON))
    summary = run(pool, sweep_of(*cells), tmp_path)
    assert pool.most == 2
    assert [row.cell for row in summary.rows] == [one.key for one in cells]
    hosts = [row.environment["host_cpu"] for row in summary.rows]
    assert hosts == ["Xeon", "EPYC", "Xeon", "EPYC", "Xeon"]
    assert summary.exit_code == 0
    again = FakePool(lambda task: delivered())
    assert run(again, sweep_of(*cells), tmp_path).skipped == 5
    assert again.sent == []


def test_a_lost_machine_costs_its_cell_one_retry_and_no_row(tmp_path):
    unlucky = cell(seed=1)

    def answer(task: Task) -> Delivery | Lost:
        first = task.cells[0] == unlucky and task.tries == 1
        return Lost("node 10.0.0.1 was lost") if first else delivered()

    pool = FakePool(answer)
    summary = run(pool, sweep_of(cell(), unlucky, cell(seed=2)), tmp_path)
    assert [task.cells[0].seed for task in pool.sent] == [0, 1, 2, 1] or [
        task.cells[0].seed for task in pool.sent
    ] == [0, 1, 1, 2]
    assert [row.status for row in summary.rows] == ["ok"] * 3
    rows = load_rows(tmp_path)
    assert len(rows) == 3
    (row,) = [row for row in rows if row.cell == unlucky.key]
    assert [(one["status"], one["reason"]) for one in row.attempts] == [
        ("error", "node 10.0.0.1 was lost"),
        ("ok", None),
    ]
    assert row.environment == XEON


def test_the_loss_is_on_disk_before_the_cell_is_sent_again(tmp_path):
    seen = []

    def answer(task: Task) -> Delivery | Lost:
        if task.tries == 1:
            return Lost("gone")
        seen.extend(ResultStore(tmp_path).rows())
        return delivered()

    run(FakePool(answer), sweep_of(cell()), tmp_path)
    assert [(row.status, row.environment) for row in seen] == [("error", None)]


def test_a_cell_whose_machines_are_lost_twice_is_an_error_with_both_attempts(tmp_path):
    pool = FakePool(lambda task: Lost(f"lost {task.tries}"))
    summary = run(pool, sweep_of(cell()), tmp_path)
    assert len(pool.sent) == 2
    (row,) = load_rows(tmp_path)
    assert [attempt["reason"] for attempt in row.attempts] == ["lost 1", "lost 2"]
    assert (row.status, summary.exit_code) == ("error", 1)


@pytest.mark.parametrize("status", ["error", "oom", "timeout", "invalid"])
def test_a_cell_that_fails_by_itself_is_not_sent_again(tmp_path, status):
    pool = FakePool(lambda task: delivered(status))
    summary = run(pool, sweep_of(cell()), tmp_path)
    assert len(pool.sent) == 1
    assert [row.status for row in summary.rows] == [status]


@pytest.mark.parametrize(
    "measured", [{"no_such_field": 1}, {"parameters": "many"}, {"parameters": 7, "latency_s": float("nan")}]
)
def test_a_delivery_that_makes_no_row_costs_its_cell_alone(tmp_path, measured):
    pool = FakePool(lambda task: delivered(**(measured if task.cells[0].seed == 0 else {})))
    summary = run(pool, sweep_of(cell(), cell(seed=1)), tmp_path)
    assert [row.status for row in summary.rows] == ["error", "ok"]
    assert "what the worker measured makes no row" in summary.rows[0].reason
    assert summary.rows[0].environment is None  # what was measured of it is no more to be trusted
    assert load_rows(tmp_path) == summary.rows


def test_larger_batches_of_a_cell_that_ran_out_of_memory_are_not_sent(tmp_path):
    pool = FakePool(lambda task: delivered("oom"), room=1)
    cells = [cell(batch=batch) for batch in (32, 64, 16)]
    summary = run(pool, sweep_of(*cells), tmp_path)
    assert [row.status for row in summary.rows] == ["oom", "skipped", "oom"]
    assert summary.rows[1].environment is None  # it ran nowhere, least of all on the driver


def test_interrupting_keeps_what_runs_and_sends_no_more(tmp_path):
    stop = Stop()

    def interrupt(number: int) -> None:
        stop.requested = True

    pool = FakePool(lambda task: delivered(), after=interrupt)
    summary = run(pool, sweep_of(*(cell(seed=seed) for seed in range(5))), tmp_path, stop)
    assert len(pool.sent) == len(load_rows(tmp_path)) == 2
    assert (summary.left, summary.interrupted, summary.exit_code) == (3, True, 130)


@pytest.mark.parametrize("machines_left", [True, False])
def test_interrupting_before_cells_are_timed_in_turn_says_that_this_is_left(tmp_path, machines_left):
    stop = Stop()

    def interrupt(number: int) -> None:
        stop.requested = number == 2
        pool.could_run = lambda task: machines_left

    pool = FakePool(lambda task: delivered(), after=interrupt)
    summary = run(pool, sweep_of(cell(), cell(seed=1), in_turn="network"), tmp_path, stop)
    assert [row.status for row in summary.rows] == ["ok", "ok"]
    assert len(pool.sent) == 2
    assert (summary.untimed, summary.exit_code) == (1, 130)
    assert str(summary) == "interrupted: 2 cells run, timing in turn left; start again to go on"


def test_what_no_machine_can_run_any_more_is_left(tmp_path):
    pool = FakePool(lambda task: delivered())

    def die(number: int) -> None:
        pool.room = 0

    pool.after = die
    summary = run(pool, sweep_of(*(cell(seed=seed) for seed in range(4))), tmp_path)
    assert (len(summary.rows), summary.left, summary.exit_code) == (2, 2, 1)
    pool.room = 2
    pool.after = lambda number: None
    assert run(pool, sweep_of(*(cell(seed=seed) for seed in range(4))), tmp_path).exit_code == 0


def test_cells_of_one_network_are_timed_in_turn_on_the_machine_that_ran_them(tmp_path):
    """Seeds 0, 1, 2 ran on an EPYC, 3 on a Xeon: alone there, it has no partner."""
    cells = [cell(seed=seed) for seed in range(4)]

    def answer(task: Task) -> Delivery | Lost:
        if task.rounds is None:
            alone = task.cells[0].seed == 3
            return delivered(environment=XEON if alone else EPYC, machine="one" if alone else "two")
        pair = {"reference": task.cells[0].key, "batch": 64, "seconds": [1.0], "reference_seconds": [1.0]}
        return delivered(environment=EPYC, turns={one.key: pair for one in task.cells})

    pool = FakePool(answer)
    summary = run(pool, sweep_of(*cells, in_turn="network"), tmp_path)
    turns = pool.sent[-1]
    assert ([one.seed for one in turns.cells], turns.machine) == ([0, 1, 2], "two")
    assert [row.turns and row.turns["reference"] for row in summary.rows] == [cells[0].key] * 3 + [None]
    assert summary.rows[3].unmeasured["turns"].startswith("not timed in turn")
    assert len(load_rows(tmp_path)) == 4
    assert run(pool, sweep_of(*cells, in_turn="network"), tmp_path).rows == summary.rows
    assert pool.sent[-1] is turns


@pytest.mark.parametrize(
    ("arrival", "words"),
    [
        (Lost("node went"), "timing in turn: node went"),
        (delivered(environment=EPYC), "another environment (hardware EPYC, not Xeon; host EPYC, not Xeon)"),
        (delivered("oom"), "timing in turn: oom: on purpose"),
    ],
)
def test_why_there_are_no_times_in_turn_stands_in_the_rows(tmp_path, arrival, words):
    pool = FakePool(lambda task: delivered() if task.rounds is None else arrival)
    summary = run(pool, sweep_of(cell(), cell(seed=1), in_turn="network"), tmp_path)
    rows = summary.rows
    assert ([row.status for row in rows], summary.exit_code) == (["ok", "ok"], 1)
    assert all(row.turns is None and words in row.unmeasured["turns"] for row in rows)


def test_times_in_turn_outlive_a_machine_that_is_lost_when_a_cell_joins(tmp_path):
    def answer(task: Task) -> Delivery | Lost:
        if task.rounds is None:
            return delivered()
        pair = {"reference": task.cells[0].key, "batch": 64, "seconds": [1.0], "reference_seconds": [1.0]}
        turns = delivered(turns={one.key: pair for one in task.cells})
        return turns if len(task.cells) == 2 else Lost("node went")

    cells = [cell(seed=seed) for seed in range(3)]
    before = run(FakePool(answer), sweep_of(*cells[:2], in_turn="network"), tmp_path).rows
    summary = run(FakePool(answer), sweep_of(*cells, in_turn="network"), tmp_path)
    assert summary.rows[:2] == before
    assert summary.rows[2].unmeasured["turns"] == "timing in turn: node went"
    assert summary.exit_code == 1


def test_cells_go_into_turns_with_the_options_that_were_chosen_for_them(tmp_path, monkeypatch):
    chosen = {"window": {"1": 16, "64": 8}}
    pool = FakePool(lambda task: delivered(**({"chosen_options": chosen} if task.cells[0].seed else {})))
    run(pool, sweep_of(cell(), cell(seed=1), in_turn="network"), tmp_path)
    turns = pool.sent[-1]
    assert turns.chosen == {cell(seed=1).key: {"window": 8}}
    asked = []
    monkeypatch.setattr(on_node, "run_turns", lambda group, *rest, **named: asked.append(group) or OUTCOME)
    run_task(turns, tmp_path, "here", STAND_IN)
    assert [group.chosen for group in asked] == [turns.chosen]


def test_a_machine_that_is_gone_before_the_turns_is_named_in_the_rows(tmp_path):
    pool = FakePool(lambda task: delivered())
    pool.could_run = lambda task: task.machine is None
    rows = run(pool, sweep_of(cell(), cell(seed=1), in_turn="network"), tmp_path).rows
    assert all("no machine of the environment" in row.unmeasured["turns"] for row in rows)


def test_turns_go_to_a_machine_like_the_one_that_is_gone(tmp_path):
    def answer(task: Task) -> Delivery | Lost:
        if task.rounds is None:
            return delivered(machine="gone" if task.cells[0].seed < 2 else "alike")
        pair = {"reference": task.cells[0].key, "batch": 64, "seconds": [1.0], "reference_seconds": [1.0]}
        return delivered(turns={one.key: pair for one in task.cells})

    pool = FakePool(answer)
    pool.could_run = lambda task: task.machine != "gone"
    cells = (cell(), cell(seed=1), cell(seed=2, batch=1))
    rows = run(pool, sweep_of(*cells, in_turn="network"), tmp_path).rows
    assert pool.sent[-1] == Task(cells[:2], pool.sent[-1].rounds, "alike")
    assert [bool(row.turns) for row in rows] == [True, True, False]


# On a machine -------------------------------------------------------------------------------------------


class Here(FakePool):
    """One machine that is this one: tasks run in a folder of their own, as on a node."""

    def __init__(self, results: Path):
        super().__init__(lambda task: run_task(task, results, "here", STAND_IN), room=1)


def test_tasks_on_a_node_give_the_rows_of_a_local_run(tmp_path):
    sweep = sweep_of(
        cell(), cell("fail", 1), cell("crash", 2), cell(seed=3), cell("store", 4), in_turn="network"
    )
    local = run_sweep(sweep, tmp_path / "local", STAND_IN).rows
    there = run_sweep(sweep, tmp_path / "there", pool=Here(tmp_path / "there")).rows

    def plain(rows) -> list:
        return [
            (row.cell, row.status, row.reason, row.parameters, row.turns, row.unmeasured, row.environment)
            for row in rows
        ]

    assert plain(there) == plain(local)
    assert plain(load_rows(tmp_path / "there")) == plain(local)
    log = (tmp_path / "there" / "artifacts" / f"{sweep.cells[2].key}.log").read_text()
    assert "Fatal: something broke" in log
    stored = f"artifacts/{sweep.cells[4].key}.npz"
    assert (tmp_path / "there" / stored).read_bytes() == (tmp_path / "local" / stored).read_bytes()


def test_turns_have_the_rounds_and_processes_of_the_sweep(tmp_path, monkeypatch):
    sweep, asked = Sweep("test", "test", (cell(), cell(seed=1)), rounds=9, processes=3), []
    pool = FakePool(lambda task: delivered())
    run(pool, sweep, tmp_path / "there")
    for room in (turns, on_node):
        monkeypatch.setattr(room, "run_turns", lambda group, *_, **__: asked.append(group) or OUTCOME)
    run_task(pool.sent[-1], tmp_path, "here", STAND_IN)
    run_sweep(sweep, tmp_path / "here", STAND_IN)
    assert [(group.rounds, group.processes) for group in asked] == [(9, 3)] * 2


def test_published_cells_need_a_folder_that_the_node_sees(tmp_path):
    published = cell(network="lpd-l-256")
    here = run_task(Task((published,)), tmp_path, "here", STAND_IN)
    assert here.outcome.status == "error"
    assert "choose a --results on a file system that all machines share" in here.outcome.reason
    with only_sweep_in(ResultStore(tmp_path)):
        assert run_task(Task((published,)), tmp_path, "here", STAND_IN).outcome.status == "ok"
    assert (tmp_path / "images").is_dir()
    (tmp_path / "token").touch()
    assert describe(tmp_path, "token")["shared"]
    assert not describe(tmp_path, "other")["shared"]


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"pardec": "99.0"}, "node n has pardec 99.0, this machine"),
        ({"git": ("b" * 40, False)}, f"node n runs commit {'b' * 12}, this machine commit {'a' * 12}: check"),
        ({"git": ("a" * 40, True)}, f"node n runs commit {'a' * 12} with changes, this machine commit"),
    ],
)
def test_a_node_that_runs_other_code_is_named(tmp_path, monkeypatch, node, words):
    for room in (on_node, ray_pool):
        monkeypatch.setattr(room, "git_state", lambda: ("a" * 40, False))
    alike = describe(tmp_path, "token") | {"host": "n"}
    ray_pool.check_code(alike)
    ray_pool.check_code(alike | {"git": (None, None)})
    with pytest.raises(UserError, match=words):
        ray_pool.check_code(alike | node)


# Placing ------------------------------------------------------------------------------------------------


def test_a_cell_takes_a_gpu_or_its_threads():
    assert Need.of(cell(device="cuda")) == Need(1, 1)
    assert Need.of(cell()) == Need(1, 0)
    assert Need.of(Cell("lpd", threads=6)) == Need(6, 0)


def test_cells_go_where_most_is_free_and_cells_of_the_cpu_leave_gpus_alone():
    plain, large, gpu = Node("a", "", 4, 0), Node("b", "", 8, 0), Node("c", "", 64, 2)
    nodes = [plain, large, gpu]
    assert choose(nodes, Need(2, 0)) == large
    assert choose(nodes, Need(1, 1)) == gpu
    assert choose(nodes, Need(32, 0)) == gpu
    assert choose(nodes, Need(2, 0), machine="a") == plain
    assert choose(nodes, Need(6, 0), machine="a") is None
    assert choose(nodes, Need(1, 3)) is None
    assert choose([gpu.without([Need(1, 1), Need(1, 1)])], Need(1, 1)) is None
    assert choose([large.without([Need(6, 0)])], Need(3, 0)) is None
