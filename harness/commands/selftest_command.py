"""pardec selftest: how often the regression gate cries wolf, and what it finds, on this machine."""

import argparse
import json
from pathlib import Path

from harness.commands.common import add_zoo_flag
from results.store import RESULTS

SUMMARY = (
    "measure the regression gate itself: false alarms and detection of planted changes. Exit status: 0 all "
    "targets met, 1 one missed, 2 a mistake in the call"
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out", type=Path, default=RESULTS / "selftest.json", metavar="FILE", help="default: %(default)s"
    )
    command.add_argument("--threads", type=int, default=0, help="CPU threads (0: every core)")
    command.add_argument("--quick", action="store_true", help="a tenth of the comparisons, to try it out")
    add_zoo_flag(command)


def run(options: argparse.Namespace) -> int:
    from harness.cell.cell import checked
    from harness.machine.environment import usable_cores
    from harness.regress.selftest import Size, selftest
    from reports.selftest import lines

    threads = checked("threads", options.threads, "--threads") or usable_cores()
    zoo = None if options.zoo is None else str(options.zoo.absolute())
    few = Size(exact=20, plants=3, processes=3, planted_processes=2, per_process=2, together=1, quality=1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = selftest(
        few if options.quick else Size(), options.out.parent / "artifacts", print, threads=threads, zoo=zoo
    )
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines(found)))
    print(f"self-test: {options.out}")
    return 0 if all(rate["met"] for rate in found["rates"]) else 1
