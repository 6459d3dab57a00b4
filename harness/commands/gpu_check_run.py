"""pardec gpu-check at work: each check as it ends, then the table, the rows and the page."""

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.gpu_check.check import Bench, Outcome, run_checks
from harness.gpu_check.suite import checks, figures_of, machine, write
from harness.machine.terminal import progress_bar

COLOURS = {"pass": "green", "fail": "red", "not run": "yellow"}


def run_and_show(device: str, seconds: float, out: Path, goldens: Path | None) -> int:
    """0 where nothing failed, 1 otherwise."""
    bench = Bench.of(torch.device(device), goldens)
    asked, outcomes = checks(bench.device), list[Outcome]()
    where = machine(device)
    beside = write(outcomes, where, out)
    with progress_bar() as bar:
        task = bar.add_task("checking", total=len(asked))
        for outcome in run_checks(asked, bench, seconds):
            outcomes.append(outcome)
            beside = write(outcomes, where, out)  # at once: a lent machine may be gone before the end
            bar.update(task, advance=1, description=outcome.name)
    Console().print(table(outcomes))
    print(f"{where['gpu'] or where['host_cpu']}, torch {where['torch']}, driver {where['driver'] or 'none'}")
    print(f"rows: {out}\npage: {beside}")
    return 1 if any(one.state == "fail" for one in outcomes) else 0


def table(outcomes: list[Outcome]) -> Table:
    shown = Table("check", "state", "s", "figures and reasons")
    for one in outcomes:
        said = "; ".join(filter(None, (one.reason, figures_of(one))))
        shown.add_row(one.name, Text(one.state, COLOURS[one.state]), f"{one.seconds:.1f}", Text(said))
    return shown
