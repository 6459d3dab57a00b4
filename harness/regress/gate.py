"""Measures for the gate: records a baseline, or compares with one and times again what looks slow."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.cell.sweep_file import Sweep
from harness.regress import benchmarks
from harness.regress.findings import Finding
from harness.regress.judge import judge, suspects
from harness.sweep.process import WORKER, TurnGroup, run_turns
from harness.sweep.row import Summary
from harness.sweep.sweep import run_sweep, sweep_cells
from harness.sweep.turns import chosen_of
from pardec.errors import UserError
from pardec.files import write_whole
from results.schema import Row, Turns, row_to_json
from results.store import ROWS, load_rows

BASELINES = Path(__file__).parents[2] / "results" / "baselines"


def asked(
    name: str, overrides: Mapping[str, Any], baseline: Path | None, benchmark_json: Path | None
) -> tuple[Sweep, Path, benchmarks.Benchmarks | None]:
    """The checked cells of a sweep, the baseline's file, and what pytest-benchmark measured, if it joins."""
    sweep = sweep_cells(name, overrides=overrides)
    joined = None if benchmark_json is None else benchmarks.read_benchmark_json(benchmark_json)
    return sweep, baseline_path(sweep, baseline), joined


def baseline_path(sweep: Sweep, given: Path | None) -> Path:
    """The file of rows that a sweep is compared with."""
    return given or BASELINES / f"{sweep.name}.jsonl"


@contextmanager
def fresh_folder(given: Path | None) -> Iterator[Path]:
    """``given``, which must hold no rows (they would pass for today's), else a temporary folder."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="pardec-gate-") as folder:
            yield Path(folder)
    elif (given / ROWS).exists() and (given / ROWS).stat().st_size:
        raise UserError(f"--results '{given}' holds rows already: the gate measures anew, name a new folder")
    else:
        yield given


def record(sweep: Sweep, folder: Path, path: Path, command: Sequence[str] = WORKER) -> Summary:
    """Measure ``sweep`` and write its rows to ``path``, whole; nothing where a cell is not ok."""
    summary = run_sweep(sweep, folder, command)
    if summary.exit_code == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Pictures and logs stay behind, so the rows name none.
        kept = (dataclasses.replace(row, artifacts={}) for row in summary.rows)
        lines = [(row_to_json(row) + "\n").encode() for row in kept]
        write_whole(path, lambda file: file.writelines(lines))
    return summary


def compare(
    sweep: Sweep, folder: Path, baseline: Path, command: Sequence[str] = WORKER
) -> tuple[Summary, list[Finding]]:
    """Measure ``sweep`` and judge it; a cell that looks slow is timed again in processes of its own.

    Without a baseline there is nothing to judge: one notice, and a failure only for cells that are not ok.
    """
    before = load_rows(baseline) if baseline.exists() else []
    summary = run_sweep(sweep, folder, command)
    if not before:
        text = f"no baseline at '{baseline}': 'pardec baseline' records one"
        return summary, [
            Finding("all cells", "cell", "baseline", "none", "", "notice", text),
            *judge([], summary.rows),
        ]
    slow = suspects(before, summary.rows)
    again = time_again(sweep, slow, folder, command, chosen_of(summary.rows))
    return summary, judge(before, summary.rows, again)


def time_again(
    sweep: Sweep,
    rows: Sequence[Row],
    folder: Path,
    command: Sequence[str] = WORKER,
    chosen: Mapping[str, Mapping[str, Any]] = {},
) -> dict[str, Turns]:
    """Cell -> times of a second round of these cells beside their reference; none where it fails.

    chosen: as ``TurnGroup.chosen``.
    """
    cells = {cell.key: cell for cell in sweep.cells}
    found: dict[str, Turns] = {}
    references = {row.turns["reference"] for row in rows if row.turns is not None}
    for reference in sorted(references):
        slow = [row for row in rows if row.turns is not None and row.turns["reference"] == reference]
        timed = (cells[reference], *(cells[row.cell] for row in slow))
        group = TurnGroup(timed, sweep.rounds, sweep.processes, chosen)
        log = folder / "artifacts" / f"again-{reference}.log"
        outcome = run_turns(group, folder, log, command=command)
        found |= outcome.measured.get("turns", {})
    return found
