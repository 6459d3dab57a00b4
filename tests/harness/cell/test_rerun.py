"""The command beside a row measures the same cell; a sweep may be the settings of one cell."""

import shlex

import pytest

from harness.cell.sweep_file import ONE_CELL, is_one_cell, load
from harness.sweep.sweep import sweep_cells
from pardec.errors import UserError
from reports.rerun import command
from tests.reports.synthetic_rows import base_row


def words(cell) -> list[str]:
    return shlex.split(command(base_row(1, settings=cell.settings())))


SWEEP = """
[defaults]
images = 40
batch = 8
[[include]]
strategy = ["real", "raster", "zipar"]
guidance = 1.25
[[include]]
strategy = "rar"
guidance = 1.5
guidance_schedule = "power-cosine"
guidance_power = 2.5
[[include]]
strategy = "lpd"
options = [{ order = "locality" }, { order = "random" }]
label = "LPD, an order"
steps = [6, 10]
temperature = 0.9
[[include]]
strategy = "sjd"
options = { window = 8 }
by_batch = false
lossiness_images = 0
"""


def test_the_command_of_a_row_is_a_sweep_of_its_cell(small_zoo, tmp_path):
    zoo = {"zoo": str(small_zoo)}
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP, encoding="utf-8")
    cells = sweep_cells(str(file), None, zoo).cells
    assert len(cells) == 9
    for cell in cells:
        pardec, sweep, text, *flags = words(cell)
        assert (pardec, sweep, flags) == ("pardec", "sweep", ["--zoo", str(small_zoo)])
        again = sweep_cells(text, None, zoo)
        assert [one.key for one in again.cells] == [cell.key]
        assert (again.name, again.in_turn) == (ONE_CELL, "none")


@pytest.mark.parametrize("value", ["/a, b/c.npz", "/it's/c.npz", 'say "x"', "a|b", "x = 1", "2024", "true"])
def test_texts_survive_the_shell_and_the_settings(value):
    text = f"lpd,network=lpd-l-256,steps=8,checkpoint=random,reference={chr(34)}/r{chr(34)}"
    cell = load(f"strategy={text}").cells[0]
    settings = cell.settings() | {"reference": value}
    found = shlex.split(command(base_row(1, settings=settings)))[2]
    assert load(found).cells[0].reference == value


def test_what_no_command_can_say_has_none(small_zoo):
    assert command(base_row(1)) is None  # a row of an older schema
    assert command(base_row(1, settings={"strategy": "lpd", "checkpoint": "'\""})) is None
    cell = load("strategy=lpd,steps=4").cells[0]
    found = command(base_row(1, settings=cell.settings() | {"plugin": ["/a b/c.py"]}))
    assert found is not None
    assert found.endswith("--plugin '/a b/c.py'")


def test_a_sweep_of_one_cell_is_told_from_a_file(tmp_path):
    assert is_one_cell("strategy=lpd,steps=4")
    assert not is_one_cell("quick")
    assert not is_one_cell("a=b.toml")
    file = tmp_path / "a=b"
    file.write_text("[[include]]\nstrategy = 'real'\n", encoding="utf-8")
    assert not is_one_cell(str(file))
    assert load("strategy=real,images=10").cells[0].is_anchor


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("strategy=lpdd", "unknown strategy 'lpdd'"),
        ("strategy=lpd,stepz=3", "did you mean 'steps'"),
        ("strategy=lpd,steps=1000", "sweep 'strategy=lpd,steps=1000', cell"),
    ],
)
def test_mistakes_name_the_cell(small_zoo, text, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        sweep_cells(text, None, {"zoo": str(small_zoo)})
