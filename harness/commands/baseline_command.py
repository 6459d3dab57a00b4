"""pardec baseline: record what `pardec regress` compares with."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.common import add_machine_flags, overrides

if TYPE_CHECKING:
    from harness.cell.sweep_file import Sweep
    from harness.regress.benchmarks import Benchmarks

SUMMARY = "record the baseline that 'pardec regress' compares with"


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_gate_arguments(command, "--out", "file to write (default: results/baselines/NAME.jsonl)")


def add_gate_arguments(command: argparse.ArgumentParser, file_flag: str, file_help: str) -> None:
    """What recording and comparing have in common."""
    command.add_argument(
        "sweep", nargs="?", default="gate", metavar="FILE|NAME", help="sweep to measure (default: gate)"
    )
    command.add_argument(file_flag, dest="baseline", type=Path, metavar="FILE", help=file_help)
    command.add_argument(
        "--results", type=Path, metavar="DIR", help="new folder that keeps the rows (default: none does)"
    )
    command.add_argument(
        "--benchmark-json", type=Path, metavar="FILE", help="results of pytest-benchmark that join"
    )
    add_machine_flags(command)


def gate_of(options: argparse.Namespace) -> "tuple[Sweep, Path, Benchmarks | None]":
    """The checked cells, the baseline's file, and what pytest-benchmark measured, if it joins."""
    from harness.regress import benchmarks, gate
    from harness.sweep.sweep import sweep_cells

    sweep = sweep_cells(options.sweep, overrides=overrides(options))
    joined = None
    if options.benchmark_json is not None:
        joined = benchmarks.read_benchmark_json(options.benchmark_json)
    return sweep, gate.baseline_path(sweep, options.baseline), joined


def run(options: argparse.Namespace) -> int:
    from harness.regress import benchmarks, gate

    sweep, path, joined = gate_of(options)
    with gate.fresh_folder(options.results) as folder:
        summary = gate.record(sweep, folder, path)
    print(summary)
    if summary.exit_code:
        print("no baseline was recorded")
        return summary.exit_code
    if joined is not None:
        benchmarks.beside(path).write_text(json.dumps(joined, indent=1) + "\n", encoding="utf-8")
    print(f"baseline: {path}")
    return 0
