"""Workers that fail in every way, parents that are killed, and sweeps that go on as if nothing had been."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.cell import Cell
from harness.executors import ROOT, run_in_worker
from harness.failures import classify
from harness.generate import NotFinite
from harness.sweep import run_sweep
from harness.sweep_file import Sweep
from results.store import ResultStore, load_rows
from strategies.decoding.errors import UserError

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_worker.py")))


def gone(pid: int, patience_s: float = 10.0) -> bool:
    """Whether the process ends in time; a zombie has ended."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


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


def test_a_late_worker_is_stopped_with_its_whole_group(tmp_path):
    outcome = run("family", tmp_path, timeout_s=2.0)
    assert outcome.status == "timeout"
    assert outcome.wall_s < 10
    child = int(re.search(r"child (\d+)", (tmp_path / "log").read_text()).group(1))
    assert gone(child)


PARENT = """
import sys
from pathlib import Path
from harness.cell import Cell
from harness.executors import run_in_worker
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
    assert [row.paired["reference"] if row.paired else None for row in rows] == [ours[0].key] * 2 + [None] * 2
    assert rows[3].unmeasured["paired"].startswith("not timed in turn")
    assert load_rows(tmp_path) == rows
    again = run_sweep(sweep, tmp_path, STAND_IN)
    assert again.rows[:2] == rows[:2]


def test_timing_in_turn_that_fails_leaves_the_rows_ok_and_says_why(tmp_path):
    rows = run_sweep(sweep_of(["ok", "ok"]), tmp_path, (*STAND_IN, "--no-turns")).rows
    assert [row.status for row in rows] == ["ok", "ok"]
    assert all("timing in turn: error: ValueError: no turns" in row.unmeasured["paired"] for row in rows)


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    code = SWEEP.format(labels=["ok 3"])
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *STAND_IN], cwd=ROOT)
    end = time.monotonic() + 20
    while not list(tmp_path.glob("artifacts/*.log")) and time.monotonic() < end:
        time.sleep(0.02)
    with pytest.raises(UserError, match="another sweep is running"):
        run_sweep(sweep_of(["ok"]), tmp_path, STAND_IN)
    assert first.wait() == 0


SWEEP = """
import sys
from pathlib import Path
from harness.cell import Cell
from harness.sweep import run_sweep
from harness.sweep_file import Sweep
cells = [Cell("lpd", label=label, seed=seed, threads=1) for seed, label in enumerate({labels})]
sys.exit(run_sweep(Sweep("test", "test", tuple(cells)), Path(sys.argv[1]), sys.argv[2:]).exit_code)
"""
LABELS = ["ok 0.3", "fail", "ok 0.3", "ok 0.3", "ok 0.3", "ok 0.3"]


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SWEEP.format(labels=LABELS), str(folder), *STAND_IN], cwd=ROOT
    )


def wait_for_rows(folder: Path, count: int) -> None:
    end = time.monotonic() + 30
    rows = folder / "rows.jsonl"
    while time.monotonic() < end:
        if rows.exists() and rows.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError("the sweep is too slow")


def wait_for_child(pid: int) -> int:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError("no worker")


def test_a_sweep_killed_with_its_workers_gives_the_rows_of_an_undisturbed_one(tmp_path):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    undisturbed = start(calm)
    for rows in (1, 3):
        sweep = start(killed)
        wait_for_rows(killed, rows)
        time.sleep(0.1 * rows)  # in the middle of a cell
        sweep.send_signal(signal.SIGKILL)
        sweep.wait()
    sweep = start(killed)
    wait_for_rows(killed, 4)
    os.kill(wait_for_child(sweep.pid), signal.SIGKILL)
    sweep.wait()
    assert start(killed).wait() == 1  # a cell fails, on purpose
    assert undisturbed.wait() == 1
    assert statuses(killed) == statuses(calm)
    assert len(statuses(calm)) == len(LABELS)


def test_interrupting_stops_after_the_current_cell(tmp_path):
    sweep = start(tmp_path)
    wait_for_rows(tmp_path, 1)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(20) == 130
    assert 1 <= len(statuses(tmp_path)) < len(LABELS)


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
    kept = {(row.cell, row.environment["host_cpu"]): row.paired for row in load_rows(elsewhere)}
    here = rows[0].environment["host_cpu"]
    assert kept[cells[0].key, here]["reference"] == kept[cells[2].key, here]["reference"] == cells[0].key
    assert kept[cells[0].key, "another"] is kept[cells[1].key, "another"] is None
