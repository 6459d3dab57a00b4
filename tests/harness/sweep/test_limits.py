"""What a cell may take: limits beyond what the system counts, a shell's own, the widest of cells in turn."""

import dataclasses
import errno
import os
import resource
import subprocess
import sys

import pytest

from harness.cell.cell import Cell
from harness.cell.sweep_file import Sweep
from harness.sweep import process
from harness.sweep.process import Outcome, TurnGroup, limit_memory, run_in_worker, run_turns
from harness.sweep.sweep import run_sweep
from tests.harness.sweeps_at_work import STAND_IN

CELL = Cell("lpd", label="ok", threads=1, timeout_s=30.0)


@pytest.mark.parametrize(
    "limits",
    [{"timeout_s": 3e6}, {"timeout_s": 1e300}, {"memory_limit_gb": 1e10}, {"memory_limit_gb": 1e300}],
)
def test_a_limit_may_be_larger_than_what_the_system_counts(tmp_path, limits):
    outcome = run_in_worker(dataclasses.replace(CELL, **limits), tmp_path, tmp_path / "log", command=STAND_IN)
    assert (outcome.status, outcome.reason) == ("ok", None)


def test_a_limit_of_the_shell_is_not_raised():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        own = 4 * 10**9
        resource.prlimit(child.pid, resource.RLIMIT_DATA, (own, own))
        limit_memory(child.pid, dataclasses.replace(CELL, memory_limit_gb=8.0))
        assert resource.prlimit(child.pid, resource.RLIMIT_DATA) == (own, own)
        limit_memory(child.pid, dataclasses.replace(CELL, memory_limit_gb=2.0))
        assert resource.prlimit(child.pid, resource.RLIMIT_DATA) == (2 * 10**9, 2 * 10**9)
        resource.prlimit(child.pid, resource.RLIMIT_DATA, (10**9, 2 * 10**9))
        limit_memory(child.pid, dataclasses.replace(CELL, memory_limit_gb=8.0))
        assert resource.prlimit(child.pid, resource.RLIMIT_DATA) == (10**9, 10**9), "a soft one neither"
        child.communicate(b"\n")


@pytest.mark.parametrize("refused", ["pidfd_open", "prlimit"])
def test_a_worker_that_cannot_be_watched_costs_its_cell_alone(tmp_path, monkeypatch, refused):
    place = os if refused == "pidfd_open" else resource
    real, calls = getattr(place, refused), []

    def once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return real(*arguments)

    monkeypatch.setattr(place, refused, once)
    cells = tuple(dataclasses.replace(CELL, seed=seed, memory_limit_gb=1.0) for seed in range(2))
    summary = run_sweep(Sweep("test", "test", cells, in_turn="none"), tmp_path, STAND_IN)
    assert [row.status for row in summary.rows] == ["error", "ok"]
    assert summary.rows[0].reason == "the worker could not be watched: Operation not permitted"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([(1.0, 2.0), (9.0, 3.0)], (9.0, 3.0)),
        ([(9.0, 3.0), (1.0, 2.0)], (9.0, 3.0)),
        ([(1.0, 2.0), (1.0, None)], (1.0, None)),
    ],
)
def test_cells_in_turn_may_take_what_any_of_them_may(tmp_path, monkeypatch, limits, expected):
    cells = tuple(
        dataclasses.replace(CELL, seed=seed, timeout_s=time, memory_limit_gb=memory)
        for seed, (time, memory) in enumerate(limits)
    )
    asked = []

    def run(cell, *rest):
        asked.append(cell)
        return Outcome("error", "not today", {}, 0.0)

    monkeypatch.setattr(process, "run_in_worker", run)
    run_turns(TurnGroup(cells, 2), tmp_path, tmp_path / "log")
    (limited,) = asked
    assert (limited.timeout_s, limited.memory_limit_gb) == expected
    assert limited.key == cells[0].key
