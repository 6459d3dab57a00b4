"""Cells timed in turn anew: good times outlive a failure, and each is timed as it was measured."""

import dataclasses

from harness.cell.cell import Cell
from harness.cell.sweep_file import Sweep
from harness.regress import gate
from harness.sweep import turns
from harness.sweep.process import Outcome
from harness.sweep.sweep import run_sweep
from results.store import ResultStore, load_rows
from tests.harness.sweeps_at_work import STAND_IN

WHY = "timing in turn: error: ValueError: no turns"


def cell(seed: int, **more) -> Cell:
    return Cell("lpd", label="ok", seed=seed, threads=1, timeout_s=30.0, **more)


def sweep_of(*cells: Cell) -> Sweep:
    return Sweep("test", "test", cells)


def test_times_in_turn_outlive_a_failure_to_time_a_cell_that_joins(tmp_path, capsys):
    before = run_sweep(sweep_of(cell(0), cell(1)), tmp_path, STAND_IN).rows
    summary = run_sweep(sweep_of(cell(0), cell(1), cell(2)), tmp_path, (*STAND_IN, "--no-turns"))
    assert summary.rows[:2] == before
    assert (summary.rows[2].turns, summary.rows[2].unmeasured["turns"]) == (None, WHY)
    assert load_rows(tmp_path) == summary.rows
    assert (summary.exit_code, str(summary)) == (1, "1 cell run, 2 done before, timing in turn failed")
    assert f"3 cells not timed in turn with {cell(0).describe()}: {WHY}" in "".join(capsys.readouterr())
    again = run_sweep(sweep_of(cell(0), cell(1), cell(2)), tmp_path, STAND_IN)
    assert all(row.turns is not None for row in again.rows)
    assert again.exit_code == 0


def test_a_failure_to_time_beside_another_reference_is_told(tmp_path, capsys):
    before = run_sweep(sweep_of(cell(0), cell(1), cell(2)), tmp_path, STAND_IN).rows
    summary = run_sweep(sweep_of(cell(1), cell(2)), tmp_path, (*STAND_IN, "--no-turns"))
    assert summary.rows == before[1:]
    assert summary.exit_code == 1
    assert f"2 cells not timed in turn with {cell(1).describe()}: {WHY}" in "".join(capsys.readouterr())


def test_cells_are_timed_with_the_options_that_were_chosen_for_their_rows(tmp_path, monkeypatch):
    cells = (cell(0), cell(1, batch=4))
    rows = {row.cell: row for row in run_sweep(sweep_of(*cells), tmp_path, STAND_IN).rows}
    own = {"window": {"1": 16, "4": 8}}
    rows[cells[1].key] = dataclasses.replace(rows[cells[1].key], chosen_options=own)
    asked = []

    def run(group, *rest):
        asked.append(group)
        return Outcome("error", "not today", {}, 0.0)

    monkeypatch.setattr(turns, "run_turns", run)
    group = turns.TurnGroup(cells, 2)
    _, why = turns.time_group(group, rows, ResultStore(tmp_path), lambda share, doing: None, STAND_IN)
    assert why == "timing in turn: error: not today"
    assert asked[0].chosen == {cells[1].key: {"window": 8}}


def test_the_gate_times_again_with_the_options_that_were_chosen(tmp_path, monkeypatch):
    sweep = sweep_of(cell(0), cell(1))
    reference, slow = run_sweep(sweep, tmp_path, STAND_IN).rows
    asked = []

    def run(group, *rest, **named):
        asked.append(group)
        return Outcome("error", "not today", {}, 0.0)

    monkeypatch.setattr(gate, "run_turns", run)
    chosen = {reference.cell: {"window": 4}}
    assert gate.time_again(sweep, [slow], tmp_path, STAND_IN, chosen) == {}
    assert [group.chosen for group in asked] == [chosen]
