"""pardec regress: measure anew and compare with the baseline."""

import argparse
from pathlib import Path

from harness.commands.common import add_gate_flags, overrides
from pardec.errors import UserError

SUMMARY = (
    "compare with the baseline. Exit status: 0 passed (warnings and a sweep without baseline included), 1 "
    "something regressed, is not measured any more, or failed, 2 a mistake in the call, 130 interrupted"
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    add_gate_flags(command, "--baseline", "rows to compare with (default: results/baselines/NAME.jsonl)")
    command.add_argument("--markdown", type=Path, metavar="FILE", help="also write the findings as Markdown")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write every finding as JSON")


def run(options: argparse.Namespace) -> int:
    from harness.regress import benchmarks, gate, judge, show
    from harness.regress.findings import worst

    if options.baseline is not None and not options.baseline.is_file():
        raise UserError(f"--baseline '{options.baseline}': no such file; 'pardec baseline' records one")
    sweep, path, joined = gate.asked(
        options.sweep, overrides(options), options.baseline, options.benchmark_json
    )
    with gate.fresh_folder(options.results) as folder:
        summary, findings = gate.compare(sweep, folder, path)
    if joined is not None:
        findings += judge.benchmarks(benchmarks.read_recorded(benchmarks.beside(path)), joined)
    show.print_findings(findings)
    for file, text in ((options.markdown, show.to_markdown), (options.json, show.to_json)):
        if file is not None:
            file.write_text(text(findings), encoding="utf-8")
    return summary.exit_code or int(worst(findings) == "fail")
