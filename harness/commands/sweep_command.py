"""pardec sweep: run the cells of a sweep file, skip what is done, show the table, write the report."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands.common import RESULTS, add_machine_flags, add_scoring_flags, overrides
from pardec.errors import UserError

if TYPE_CHECKING:
    from harness.cell.sweep_file import Sweep
    from harness.sweep.row import Summary

SUMMARY = "run a sweep, or go on with it"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("sweep", metavar="FILE|NAME", help="sweep file, or the name of one that ships")
    command.add_argument(
        "-k",
        dest="select",
        action="append",
        metavar="EXPR",
        help="only these cells: strategy=lpd,steps<=8; several -k must all be met",
    )
    command.add_argument(
        "--results", type=Path, metavar="DIR", help=f"result folder (default: {RESULTS}/NAME)"
    )
    command.add_argument("--dry-run", action="store_true", help="list the cells and run nothing")
    command.add_argument(
        "--device-card",
        metavar="NAME",
        help="with --dry-run: predict hours on this device, not on this machine",
    )
    command.add_argument("--no-report", action="store_true", help="stop after the last cell")
    command.add_argument("--images", type=int, help="images per cell, instead of what the file says")
    command.add_argument(
        "--max-images",
        type=int,
        metavar="N",
        help="at most N images per cell, generated once, every time taken once",
    )
    command.add_argument("--seed", type=int, help="seed, instead of what the file says")
    command.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where cells run: one after the other on this machine, or one per device of a Ray cluster",
    )
    command.add_argument(
        "--address", metavar="HOST:PORT", help="head of the Ray cluster (default: the one of this machine)"
    )
    add_scoring_flags(command)
    add_machine_flags(command)


def run(options: argparse.Namespace) -> int:
    from harness.cell.cell import checked
    from harness.sweep.sweep import dry_run, run_sweep, sweep_cells

    if options.address is not None and options.executor != "ray":
        raise UserError(f"--address '{options.address}': only with --executor ray")
    if options.dry_run:
        from harness.cost.sweep_hours import predicted_hours

    most = options.max_images
    if most is not None:
        checked("images", most, "--max-images")
    select = ",".join(options.select) if options.select else None
    sweep = sweep_cells(options.sweep, select, overrides(options), most)
    if options.dry_run:
        dry_run(sweep)
        print(predicted_hours(sweep.cells, options.device_card))
        return 0
    folder = options.results or RESULTS / sweep.name
    if options.executor == "ray":
        summary = _run_on_ray(sweep, folder, options.address)
    else:
        summary = run_sweep(sweep, folder)
    print(summary)
    if not options.no_report and summary.rows:
        _show(folder)
    return summary.exit_code


def _run_on_ray(sweep: "Sweep", folder: Path, address: str | None) -> "Summary":
    from harness.sweep.cluster.ray_pool import RayPool
    from harness.sweep.sweep import run_sweep
    from results.store import ResultStore

    with RayPool(address, folder) as pool:
        ResultStore(folder)  # made once there is a cluster
        pool.check(sweep.cells)
        return run_sweep(sweep, folder, pool=pool)


def _show(folder: Path) -> None:
    from harness.commands.report_command import write
    from reports.frame import facets
    from reports.tables import print_tables
    from results.store import load_rows

    print_tables(facets(load_rows(folder)))
    print(f"report: {write(folder, None)}")
