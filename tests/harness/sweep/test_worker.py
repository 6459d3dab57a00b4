"""Workers that fail in every way, parents that are killed, and sweeps that go on as if nothing had been."""

import dataclasses
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from harness.cell.cell import Cell
from harness.cell.sweep_file import Sweep
from harness.cli import main
from harness.machine.failures import classify
from harness.machine.processes import carriers
from harness.sweep import messages
from harness.sweep import process as one_worker
from harness.sweep import sweep as sweeps
from harness.sweep.lock import only_sweep_in
from harness.sweep.process import ROOT, TurnGroup, run_in_worker
from harness.sweep.sweep import run_sweep
from pardec.errors import NotFinite
from results.store import ResultStore, load_rows
from tests.harness.sweeps_at_work import (
    RUN,
    STAND_IN,
    Running,
    gone,
    running,
    stand_in_sweep,
    wait_until,
)


def test_how_threads_wait_is_the_same_whatever_a_shell_says(monkeypatch):
    usual = one_worker.worker_environment(2)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    assert one_worker.worker_environment(2) == usual


def cell(label: str = "ok", seed: int = 0, timeout_s: float = 30.0, **more) -> Cell:
    return Cell("lpd", label=label, seed=seed, threads=1, timeout_s=timeout_s, memory_limit_gb=1.0, **more)


def run(label: str, tmp_path: Path, timeout_s: float = 30.0):
    return run_in_worker(cell(label, timeout_s=timeout_s), tmp_path, tmp_path / "log", command=STAND_IN)


def test_prints_do_not_spoil_the_result(tmp_path):
    shares = []
    outcome = run_in_worker(
        cell("ok"), tmp_path, tmp_path / "log", lambda share, doing: shares.append(share), STAND_IN
    )
    assert (outcome.status, outcome.measured) == ("ok", {"parameters": 7})
    assert shares == [0.5]
    assert "noise" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("label", "status", "words"),
    [
        ("fail", "error", "on purpose"),
        ("crash", "error", "ended with 3 and no result: Fatal: something broke"),
        ("die", "error", "ended by SIGKILL"),
        ("eat", "oom", "MemoryError (memory_limit_gb = 1)"),
    ],
)
def test_failures_are_outcomes(tmp_path, label, status, words):
    outcome = run(label, tmp_path)
    assert outcome.status == status
    assert words in outcome.reason


def test_a_worker_that_the_kernel_killed_ran_out_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(one_worker, "out_of_memory_kills", itertools.count().__next__)
    outcome = run("die", tmp_path)
    why = "the worker was killed for want of memory (memory_limit_gb = 1)"
    assert (outcome.status, outcome.reason) == ("oom", why)


def test_a_late_worker_is_stopped_with_its_whole_group(tmp_path):
    outcome = run("family", tmp_path, timeout_s=2.0)
    assert outcome.status == "timeout"
    assert outcome.wall_s < 10
    child = int(re.search(r"child (\d+)", (tmp_path / "log").read_text()).group(1))
    assert gone(child)


@pytest.mark.parametrize(
    ("label", "status", "words"),
    [
        ("exit0", "error", "ended with 0 and no result"),
        ("garbage", "error", r"no message to its pipe: b'Segmentation \xff fault'"),
        ("list", "error", "no message to its pipe: b'[1, 2]'"),
        ("deep", "error", "no message to its pipe: b'[[[["),
        ("unknown-status", "error", "no message"),
        ("no-reason", "error", "no message"),
        ("no-share", "error", "no message"),
        ("leave", "error", "ended with 3 and no result"),
        ("endless", "error", "no message to its pipe: b'xxxx"),
        ("twice", "ok", None),
    ],
)
def test_what_a_worker_says_and_how_it_goes_is_taken_as_a_strangers(
    tmp_path, monkeypatch, label, status, words
):
    monkeypatch.setattr(one_worker, "_GRACE_S", 0.3)
    monkeypatch.setattr(messages, "_LONGEST_LINE", 50_000)
    outcome = run(label, tmp_path)
    assert outcome.status == status
    assert outcome.wall_s < 20  # long before its time is over
    if words is None:
        assert (outcome.reason, outcome.measured) == (None, {"parameters": 7})
    else:
        assert words in outcome.reason


@pytest.mark.parametrize("label", ["deaf", "flood"])
def test_a_worker_that_heeds_no_signal_or_never_falls_silent_is_stopped_in_time(tmp_path, label):
    outcome = run(label, tmp_path, timeout_s=1.5)
    assert (outcome.status, outcome.reason) == ("timeout", "took longer than 1.5 s and was stopped")
    assert outcome.wall_s < 10


def test_a_worker_that_cannot_be_started_is_an_outcome(tmp_path):
    outcome = run_in_worker(cell(), tmp_path, tmp_path / "log", command=(str(tmp_path / "nothing"),))
    assert (outcome.status, outcome.reason) == (
        "error",
        "no worker could be started: No such file or directory",
    )


@pytest.mark.parametrize(
    ("does", "status", "words"),
    [
        ("time.sleep(60)", "timeout", "longer than 1 s"),
        ("sys.exit(3)", "error", "ended with 3 and no result"),
    ],
)
def test_an_order_longer_than_a_pipe_does_not_wait_for_its_reader(tmp_path, does, status, words):
    turns = TurnGroup(tuple(cell("long " * 200, seed, timeout_s=1.0) for seed in range(100)), 1)
    command = (sys.executable, "-c", f"import sys, time; {does}")
    outcome = run_in_worker(turns.cells[0], tmp_path, tmp_path / "log", command=command, group=turns)
    assert (outcome.status, words in outcome.reason) == (status, True)


def test_rounds_of_several_processes_are_one_measurement(tmp_path):
    """The first process that fails says why there is none."""
    both = (cell("ok"), cell("ok", seed=1))

    def turns(processes: int) -> dict:
        turns = one_worker.TurnGroup(both, 2, processes)
        return one_worker.run_turns(turns, tmp_path, tmp_path / "log", command=STAND_IN).measured["turns"]

    once, thrice = turns(1), turns(3)
    assert set(thrice) == {one.key for one in both}
    for key, pair in thrice.items():
        assert len(pair["seconds"]) == len(pair["reference_seconds"]) == 3 * len(once[key]["seconds"])
        assert pair["reference"] == both[0].key
    none = one_worker.run_turns(
        one_worker.TurnGroup(both, 2, 3), tmp_path, tmp_path / "log", command=(*STAND_IN, "--no-turns")
    )
    assert (none.status, none.measured) == ("error", {})


PARENT = """
import sys
from pathlib import Path
from harness.cell.cell import Cell
from harness.sweep.process import run_in_worker
cell = Cell("lpd", label="say", threads=1)
run_in_worker(cell, Path(sys.argv[1]), Path(sys.argv[1]) / "log", command=sys.argv[2:])
"""


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), *STAND_IN], cwd=ROOT)
    log, end = tmp_path / "log", time.monotonic() + 20
    while not (log.exists() and "worker" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    worker = int(re.search(r"worker (\d+)", log.read_text()).group(1))
    assert os.getpgid(worker) == worker  # a process group of its own
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(worker)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("no"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "oom"),
        (NotFinite("logits are NaN"), "invalid"),
        (RuntimeError("std::bad_alloc"), "oom"),
        (RuntimeError("shapes\ncannot be multiplied"), "error"),
    ],
)
def test_causes_have_a_status_and_one_line(error, status):
    found, reason = classify(error)
    assert found == status
    assert "\n" not in reason
    assert type(error).__name__ in reason


# Sweeps -------------------------------------------------------------------------------------------------


def sweep_of(labels: list[str]) -> Sweep:
    return Sweep("test", "test", tuple(cell(label, seed) for seed, label in enumerate(labels)))


def statuses(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "rows.jsonl").read_text().splitlines()
    rows = load_rows(folder)
    assert len(lines) == len(rows)  # one line a cell
    return sorted((row.cell, row.status) for row in rows)


def test_a_failing_cell_is_a_row_and_the_sweep_goes_on(tmp_path):
    sweep = sweep_of(["ok", "crash", "ok"])
    summary = run_sweep(sweep, tmp_path, STAND_IN)
    assert [row.status for row in summary.rows] == ["ok", "error", "ok"]
    assert summary.exit_code == 1
    failed = summary.rows[1]
    assert failed.reason in failed.unmeasured["latency_s"]
    assert failed.environment["host_cpu"] == summary.rows[0].environment["host_cpu"]
    again = run_sweep(sweep, tmp_path, STAND_IN)
    assert again.skipped == 2
    assert [row.status for row in load_rows(tmp_path)] == ["ok", "error", "ok"]
    assert len(load_rows(tmp_path)[1].attempts) == 2


def test_larger_batches_of_a_cell_that_ran_out_of_memory_are_skipped(tmp_path):
    batches = [32, 64, 16, 128]
    cells = (*(cell("short", batch=batch) for batch in batches), cell("ok", seed=1, batch=128))
    summary = run_sweep(Sweep("test", "test", cells), tmp_path, STAND_IN)
    assert [row.status for row in summary.rows] == ["oom", "skipped", "oom", "skipped", "ok"]
    assert summary.rows[1].reason == "batch 32 of the same cell ran out of memory"
    assert summary.rows[3].reason == "batch 16 of the same cell ran out of memory"
    assert summary.exit_code == 1


def test_the_exit_status_tells_of_gated_cells_and_of_sweeps_without_any_result(tmp_path):
    ungated = cell("crash", seed=1, gated=False)
    mixed = run_sweep(Sweep("test", "test", (cell(), ungated)), tmp_path / "mixed", STAND_IN)
    assert [row.status for row in mixed.rows] == ["ok", "error"]
    assert mixed.exit_code == 0
    nothing = run_sweep(Sweep("test", "test", (ungated,)), tmp_path / "nothing", STAND_IN)
    assert nothing.exit_code == 1


def test_cells_that_share_a_network_are_timed_in_turn_after_all_are_measured(tmp_path):
    ours = [cell("ok", seed) for seed in range(2)]
    other = cell("ok", network="zoo/lpd")
    sweep = Sweep("test", "test", (*ours, cell("crash", seed=9), other))
    rows = run_sweep(sweep, tmp_path, STAND_IN).rows
    assert [row.turns["reference"] if row.turns else None for row in rows] == [ours[0].key] * 2 + [None] * 2
    assert rows[3].unmeasured["turns"].startswith("not timed in turn")
    assert load_rows(tmp_path) == rows
    again = run_sweep(sweep, tmp_path, STAND_IN)
    assert again.rows[:2] == rows[:2]


def test_timing_in_turn_that_fails_leaves_the_rows_ok_and_says_why(tmp_path, capsys):
    failed = run_sweep(sweep_of(["ok", "ok"]), tmp_path, (*STAND_IN, "--no-turns"))
    assert [row.status for row in failed.rows] == ["ok", "ok"]
    why = "timing in turn: error: ValueError: no turns"
    assert all(why in row.unmeasured["turns"] for row in failed.rows)
    assert (failed.exit_code, str(failed)) == (1, "2 cells run, timing in turn failed")
    output = "".join(capsys.readouterr())
    assert f"2 cells not timed in turn with {sweep_of(['ok']).cells[0].describe()}: {why}" in output
    again = run_sweep(sweep_of(["ok", "ok"]), tmp_path, STAND_IN)
    assert (again.exit_code, str(again)) == (0, "0 cells run, 2 done before")


def test_timing_in_turn_fails_a_sweep_only_where_a_cell_of_the_group_is_gated(tmp_path):
    def failed(*gated: bool) -> int:
        cells = tuple(cell("ok", seed=seed, gated=one) for seed, one in enumerate(gated))
        folder = tmp_path / "-".join(map(str, gated))
        return run_sweep(Sweep("test", "test", cells), folder, (*STAND_IN, "--no-turns")).exit_code

    assert (failed(False, False), failed(False, True)) == (0, 1)


def test_two_sweeps_do_not_share_a_folder(tmp_path, small_zoo, capsys):
    words = ["sweep", "quick", "-k", "strategy=real", "--zoo", str(small_zoo), "--results", str(tmp_path)]
    with only_sweep_in(ResultStore(tmp_path)):
        assert main(words) == 2
    assert capsys.readouterr().err == (
        f"pardec: another sweep is running in '{tmp_path}': wait for it, or choose another folder\n"
    )


@pytest.mark.parametrize("label", ["odd-field", "odd-type", "not-a-number"])
def test_measurements_that_make_no_row_cost_their_cell_alone(tmp_path, label):
    summary = run_sweep(sweep_of([label, "ok"]), tmp_path, STAND_IN)
    assert [row.status for row in summary.rows] == ["error", "ok"]
    assert "makes no row" in summary.rows[0].reason
    assert load_rows(tmp_path) == summary.rows


def test_interrupting_stops_after_the_current_cell(tmp_path, capfd):
    summary = run_sweep(sweep_of(["interrupt", "ok"]), tmp_path, STAND_IN)
    assert ([row.status for row in summary.rows], summary.left, summary.exit_code) == (["ok"], 1, 130)
    assert "stopping after this cell" in capfd.readouterr().err
    assert len(statuses(tmp_path)) == 1


def test_interrupting_before_cells_are_timed_in_turn_says_that_this_is_left(tmp_path):
    labels = ["ok", "interrupt"]
    summary = run_sweep(sweep_of(labels), tmp_path, STAND_IN)
    assert [row.status for row in summary.rows] == ["ok", "ok"]
    assert summary.exit_code == 130
    assert str(summary) == "interrupted: 2 cells run, timing in turn left; start again to go on"
    again = run_sweep(sweep_of(labels), tmp_path, STAND_IN)
    assert (again.exit_code, again.skipped) == (0, 2)
    assert all(row.turns is not None for row in again.rows)


def interrupt_again(sweep: Running) -> None:
    sweep.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    sweep.process.send_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("stop", "status", "words"),
    [
        pytest.param(  # the command line makes it 130 and one line
            interrupt_again, -signal.SIGINT, "KeyboardInterrupt", marks=pytest.mark.slow
        ),
        (lambda sweep: sweep.process.send_signal(signal.SIGTERM), 143, "pardec: ended by SIGTERM"),
        pytest.param(
            lambda sweep: sweep.process.send_signal(signal.SIGHUP),
            129,
            "pardec: ended by SIGHUP",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stopping_now_leaves_whole_rows_and_no_process(tmp_path, stop, status, words):
    """The second interrupt, and what batch systems and closed terminals send."""
    with running(stand_in_sweep(["ok", "family"], tmp_path), str(tmp_path)) as sweep:
        wait_until(lambda: any("child" in log.read_text() for log in tmp_path.glob("artifacts/*.log")))
        stop(sweep)
        found, stderr = sweep.ended()
        assert sweep.survivors() == []
    assert found == status
    assert words in stderr
    assert [status for _, status in statuses(tmp_path)] == ["ok"]


def test_the_command_line_ends_on_one_line_when_interrupted(capsys, monkeypatch, tmp_path, small_zoo):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "run_in_worker", interrupted)
    words = ["sweep", "quick", "-k", "strategy=real", "--zoo", str(small_zoo), "--results", str(tmp_path)]
    assert main(words) == 130
    assert capsys.readouterr().err == "pardec: interrupted\n"


def test_a_killed_sweep_leaves_no_child_of_its_worker(tmp_path):
    """The kernel ends the worker with the sweep; its children, in other groups too, have to be seen to."""
    with running(stand_in_sweep(["scattered"], tmp_path), str(tmp_path)) as sweep:
        wait_until(lambda: any("scattered" in log.read_text() for log in tmp_path.glob("artifacts/*.log")))
        assert len(carriers(str(tmp_path), RUN)) >= 5  # sweep, worker, its guard, two children
        sweep.process.kill()
        sweep.ended()
        assert sweep.survivors() == []


def test_a_clock_that_goes_backwards_loses_and_reorders_nothing(tmp_path, monkeypatch):
    class Backwards(datetime):
        @classmethod
        def now(cls, tz=None):
            return next(instants)

    instants = iter(datetime(2026, 1, day, tzinfo=UTC) for day in (20, 21, 3, 2, 30))
    monkeypatch.setattr(sweeps, "datetime", Backwards)
    for label in ("fail", "fail", "crash", "ok"):  # the label is no part of what a cell is
        run_sweep(sweep_of([label]), tmp_path, STAND_IN)
    (row,) = load_rows(tmp_path)
    assert row.status == "ok"
    assert [attempt["started_at"][8:10] for attempt in row.attempts] == ["20", "21", "03", "02"]
    assert [attempt["status"] for attempt in row.attempts] == ["error", "error", "error", "ok"]
    assert run_sweep(sweep_of(["fail"]), tmp_path, STAND_IN).skipped == 1


def test_durations_do_not_follow_the_wall_clock(tmp_path, monkeypatch):
    """It jumps a day ahead or back at every look; a limit of the cell's seconds holds, too."""
    jumps = itertools.cycle((0.0, 86400.0, -86400.0))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    outcome = run("ok 0.2", tmp_path, timeout_s=20)
    assert outcome.status == "ok"
    assert 0.2 <= outcome.wall_s < 20


def test_rows_of_another_machine_are_done_but_not_timed_in_turn_here(tmp_path):
    cells = [cell("ok", seed) for seed in range(3)]
    sweep = Sweep("test", "test", tuple(cells), in_turn="none")
    rows = run_sweep(sweep, tmp_path, STAND_IN).rows
    elsewhere = tmp_path / "merged"
    store = ResultStore(elsewhere)
    for row, host in zip(rows, ("another", "another", None), strict=True):
        there = row.environment | ({"host_cpu": host} if host else {})
        store.append(dataclasses.replace(row, environment=there))
    store.append(rows[0])  # the first cell was measured here too
    again = run_sweep(dataclasses.replace(sweep, in_turn="network"), elsewhere, STAND_IN)
    assert again.skipped == 3
    kept = {(row.cell, row.environment["host_cpu"]): row.turns for row in load_rows(elsewhere)}
    here = rows[0].environment["host_cpu"]
    assert kept[cells[0].key, here]["reference"] == kept[cells[2].key, here]["reference"] == cells[0].key
    assert kept[cells[0].key, "another"] is kept[cells[1].key, "another"] is None
