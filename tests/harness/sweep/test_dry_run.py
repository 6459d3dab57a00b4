"""A dry run on a narrow terminal, and the hours of cells that take none."""

from pathlib import Path

import pytest

from harness.cli import main
from harness.cost.sweep_hours import predicted_hours
from harness.sweep.cluster.ray_pool import Need, Node
from harness.sweep.sweep import dry_run, sweep_cells
from tests.reports.test_fitting import printed

LISTED = str(Path(__file__).parents[1] / "listed.toml")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_dry_run_keeps_every_column(small_zoo, width):
    sweep = sweep_cells(LISTED, None, {"zoo": str(small_zoo)})
    text = printed(lambda console: dry_run(sweep, console), width)
    assert "…" not in text
    for word in ("cell", "setting", "steps", "batch", "images", "weights", "cache"):
        assert word in text
    for cell in sweep.cells:
        assert cell.key in text
    assert text.count("1000") >= len(sweep.cells)
    assert max(len(line) for line in text.splitlines() if line[:1] in "┃│┏┡├└") <= width
    assert (text.count("┏") > 1) == (width < 80)


def test_hours_of_nothing_name_no_card(small_zoo):
    sweep = sweep_cells(LISTED, "strategy=real", {"zoo": str(small_zoo)})
    assert predicted_hours(sweep.cells, "h200") == "predicted hours: none, no cell decodes anything"
    sweep = sweep_cells(LISTED, "strategy=real|par", {"zoo": str(small_zoo)})
    assert " once on h200, " in predicted_hours(sweep.cells, "h200")


def test_on_ray_it_says_what_a_cell_takes_of_which_node(small_zoo, capsys):
    words = ["sweep", "strategy=par,guidance=2", "--zoo", str(small_zoo), "--threads", "3"]
    assert main([*words, "--dry-run", "--executor", "ray"]) == 0
    text = capsys.readouterr().out
    assert text.count("3 CPUs") == 1
    assert "all its images are made by one process" in text
    assert main([*words, "--dry-run"]) == 0
    assert "3 CPUs" not in capsys.readouterr().out


def test_a_node_runs_as_many_cells_as_its_scarcest_resource_allows():
    node = Node("id", "10.0.0.2", cpus=16, gpus=2)
    assert node.at_once(Need(cpus=1, gpus=1)) == 2
    assert node.at_once(Need(cpus=3, gpus=0)) == 5
    assert node.said([Need(1, 1), Need(3, 0)]) == (
        "16 CPUs, 2 GPUs; at once 5 cells that take 3 CPUs or 2 cells that take a GPU"
    )
