"""pardec baseline: record what `pardec regress` compares with."""

import argparse
import json

from harness.commands.common import add_gate_flags, overrides

SUMMARY = "record the baseline that 'pardec regress' compares with"


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_gate_flags(command, "--out", "file to write (default: results/baselines/NAME.jsonl)")


def run(options: argparse.Namespace) -> int:
    from harness.regress import benchmarks, gate

    sweep, path, joined = gate.asked(
        options.sweep, overrides(options), options.baseline, options.benchmark_json
    )
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
