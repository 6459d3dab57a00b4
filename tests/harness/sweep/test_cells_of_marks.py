"""Cells of the networks of a run's marks."""

import json
import shutil

import pytest

from harness.sweep.sweep import sweep_cells
from harness.weights import zoo
from pardec.errors import UserError

FILE = """
[defaults]
images = 20
guidance = "tuned"
[[include]]
strategy = "raster"
network = "zoo/marks/raster-*"
[[include]]
strategy = "lpd"
network = "zoo/marks/lpd-*"
steps = 4
"""


@pytest.fixture
def marked(small_zoo, tmp_path):
    """A zoo whose raster has a scale of guidance and networks of two marks, LPD none; and a sweep of them."""
    folder = shutil.copytree(small_zoo, tmp_path / "zoo")
    card = json.loads((folder / "raster.json").read_text())
    (folder / "marks").mkdir()
    for mark in (10, 2):
        stem = folder / "marks" / f"raster-{mark}x"
        shutil.copyfile(folder / "raster.safetensors", stem.with_suffix(".safetensors"))
        stem.with_suffix(".json").write_text(json.dumps(card | {"images_trained": 40 * mark}))
    told = {"chosen": 1.5, "grid": [{"guidance": 1.5, "guidance_schedule": "constant"}]}
    (folder / "raster.json").write_text(json.dumps(card | {"guidance": told, "mark": 20}))
    file = tmp_path / "learning.toml"
    file.write_text(FILE)
    return folder, file


def test_a_cell_of_all_marks_is_one_of_each_at_the_scale_of_the_last(marked):
    folder, file = marked
    cells = sweep_cells(str(file), overrides={"zoo": str(folder)}).cells
    assert [cell.network for cell in cells] == ["zoo/marks/raster-2x", "zoo/marks/raster-10x", "zoo/raster"]
    assert {cell.guidance for cell in cells} == {1.5}
    assert [zoo.read_card(cell.network, folder).training_images for cell in cells[:2]] == [80, 400]


def test_without_marks_it_says_so(small_zoo, marked):
    with pytest.raises(UserError, match=r"no network of its marks stands; see: pardec train"):
        sweep_cells(str(marked[1]), overrides={"zoo": str(small_zoo)})
    with pytest.raises(UserError, match=r"marks that stand: marks/raster-2x, marks/raster-10x, raster"):
        zoo.read_card("zoo/marks/raster-4x", marked[0])
    with pytest.raises(UserError, match=r"expected zoo/NAME or zoo/marks/NAME"):
        zoo.read_card("zoo/other/raster", marked[0])


@pytest.mark.parametrize(
    ("name", "first"),
    [("lpd", "lpd"), ("lpd-seed1", "lpd"), ("var-small", "var-small"), ("marks/lpd-seed1-2x", "lpd")],
)
def test_every_network_is_named_after_the_first_of_its_kind(name, first):
    assert zoo.first_of(f"zoo/{name}") == f"zoo/{first}"
