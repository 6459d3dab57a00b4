"""``guidance = "tuned"`` is the scale that the card of the network records, as a number in key and row."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from harness.cell import sweep_file
from harness.cell.cell import Cell, normalised
from harness.cli import main
from harness.subject.pins import finished
from harness.subject.prepare import prepare
from harness.sweep.sweep import sweep_cells
from pardec.errors import UserError


@pytest.fixture(scope="module")
def tuned_zoo(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LPD's card records 3 with the linear schedule; the others' record nothing."""
    zoo = shutil.copytree(small_zoo, tmp_path_factory.mktemp("tuned") / "zoo")
    card = json.loads((zoo / "lpd.json").read_text())
    grid = [
        {"guidance": 2.0, "guidance_schedule": "constant"},
        {"guidance": 3, "guidance_schedule": "linear"},
    ]
    (zoo / "lpd.json").write_text(json.dumps(card | {"guidance": {"chosen": 3, "grid": grid}}))
    return zoo


def test_the_scale_of_the_card_is_in_key_and_cell(tuned_zoo: Path) -> None:
    cell = Cell("lpd", guidance="tuned", zoo=str(tuned_zoo), threads=1)
    found = finished(normalised(cell))
    assert (found.guidance, found.guidance_schedule) == (3.0, "linear")
    stated = dataclasses.replace(cell, guidance=3.0, guidance_schedule="linear")
    assert found.key == finished(normalised(stated)).key
    with pytest.raises(ValueError, match="not looked up"):
        _ = cell.scale


def test_a_sweep_file_may_say_it_beside_numbers(tuned_zoo: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(
        '[grid]\nstrategy = "lpd"\nguidance = [false, "tuned", 3]\nguidance_schedule = "linear"\n'
    )
    assert [cell.guidance for cell in sweep_file.load(str(file)).cells] == [None, "tuned", 3.0]
    overrides = {"zoo": str(tuned_zoo), "threads": 1}
    assert [cell.guidance for cell in sweep_cells(str(file), overrides=overrides).cells] == [None, 3.0]
    chosen = sweep_cells(str(file), "guidance>2", overrides).cells
    assert [cell.guidance for cell in chosen] == [3.0]


def test_a_cell_of_the_command_line_may_say_it(tuned_zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "strategy=lpd,steps=8,guidance=tuned"
    assert main(["explain", text, "--zoo", str(tuned_zoo)]) == 0
    assert "guidance     linear, scale 3:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "raster"}, "the card of network 'zoo/raster' records no scale"),
        ({"guidance_schedule": "power-cosine"}, "the card of network 'zoo/lpd' records a scale for 'linear'"),
        (
            {"strategy": "raster", "network": "llamagen-l-256", "checkpoint": "random"},
            "network 'llamagen-l-256' has no card; expected a number or false",
        ),
    ],
)
def test_where_no_card_records_one_is_told(tuned_zoo: Path, changes: dict[str, str], message: str) -> None:
    known = {"strategy": "lpd", "guidance": "tuned", "zoo": str(tuned_zoo)}
    with pytest.raises(UserError, match=message):
        prepare(normalised(Cell(**known | changes)))  # type: ignore[arg-type]


def test_an_acceptance_needs_drafts() -> None:
    with pytest.raises(UserError, match="acceptance: strategy 'raster' tests no drafts"):
        prepare(normalised(Cell("raster", checkpoint="random", acceptance=0.7)))
