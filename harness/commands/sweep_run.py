"""A sweep on this machine or on others, its table and its report."""

import argparse
from pathlib import Path

from harness.cell.cell import checked
from harness.cell.sweep_file import Sweep
from harness.commands.common import introduce_strategies, overrides
from harness.commands.report_command import write
from harness.cost.sweep_hours import predicted_hours
from harness.subject.pins import finished
from harness.sweep.cluster.ray_pool import Need, RayPool, nodes_at
from harness.sweep.elsewhere import foreseen, is_elsewhere, preparable
from harness.sweep.row import Summary
from harness.sweep.sweep import dry_run, run_sweep, sweep_cells
from pardec.errors import UserError
from reports.frame import facets
from reports.tables import print_tables
from results.store import RESULTS, ResultStore, load_rows


def sweep(options: argparse.Namespace) -> int:
    if options.address is not None and options.executor != "ray":
        raise UserError(f"--address '{options.address}': only with --executor ray")
    if options.device_card is not None and not options.dry_run:
        raise UserError(f"--device-card '{options.device_card}': only with --dry-run")
    most = options.max_images
    if most is not None:
        checked("images", most, "--max-images")
    select = ",".join(options.select) if options.select else None
    on_ray = options.executor == "ray"
    finish = foreseen if on_ray else finished
    sweep = sweep_cells(options.sweep, select, overrides(options), most, options.also, finish)
    if options.dry_run:
        dry_run(sweep, takes=Need.of if on_ray else None)
        if on_ray:
            print(_dealt(sweep, options.address))
        print(_hours(sweep, options.device_card))
        return 0
    folder = options.results or RESULTS / sweep.name
    summary = _run_on_ray(sweep, folder, options.address) if on_ray else run_sweep(sweep, folder)
    print(summary)
    if not options.no_report and summary.rows:
        _show(folder)
    return summary.exit_code


def _hours(sweep: Sweep, card_name: str | None) -> str:
    """Predicted hours by a named card, or by this machine's if it is that of the cells."""
    if card_name is None and any(map(is_elsewhere, sweep.cells)):
        return "predicted hours: the device is another machine's; name its card with --device-card"
    return predicted_hours([preparable(cell) for cell in sweep.cells], card_name)


def _dealt(sweep: Sweep, address: str | None) -> str:
    """How the cells are dealt; with an address, over which nodes."""
    how = (
        "each cell is one task: all its images are made by one process, which holds its weights and cache; "
        "cells go in this order to the node with most room"
    )
    if address is None:
        return f"{how} (--address HOST:PORT shows the nodes)"
    needs = {Need.of(cell) for cell in sweep.cells}
    return "\n".join([how, *(f"node {node.address}: {node.said(needs)}" for node in nodes_at(address))])


def _run_on_ray(sweep: Sweep, folder: Path, address: str | None) -> Summary:
    with RayPool(address, folder) as pool:
        ResultStore(folder)  # made once there is a cluster
        pool.check(sweep.cells)
        return run_sweep(sweep, folder, pool=pool)


def _show(folder: Path) -> None:
    introduce_strategies()
    print_tables(facets(load_rows(folder)))
    print(f"report: {write(folder, None)}")
