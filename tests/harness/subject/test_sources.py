"""A card says the network that its weights are of: both decide the tokens, the weights alone are pinned."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from backbones.checkpoints import CheckpointError
from backbones.weights import load_half
from harness.cell.cell import ZOO_PREFIX, Cell, normalised
from harness.subject.pins import finished
from harness.subject.prepare import prepare
from harness.subject.subject import load
from harness.weights import zoo
from pardec.errors import UserError


def cell(folder: Path, **changes) -> Cell:
    return normalised(Cell("lpd", zoo=str(folder), threads=1, batch=2, images=2, **changes))


@pytest.fixture
def copied(small_zoo, tmp_path) -> Path:
    return shutil.copytree(small_zoo, tmp_path / "zoo")


@pytest.mark.parametrize("changes", [{"heads": 4}, {"rotary_base": 500.0}])
def test_another_trunk_of_as_many_parameters_is_refused(copied, changes):
    key = finished(cell(copied)).key
    path = copied / "lpd.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"guidance": None}))
    assert finished(cell(copied)).key == key, "what decides no token is not compared"
    card["network"]["trunk"] |= changes
    path.write_text(json.dumps(card))
    ((name, value),) = changes.items()
    with pytest.raises(
        UserError, match=f"'zoo/lpd': its card says network.trunk.{name} = {value}, its weights "
    ):
        finished(cell(copied))
    # Weights left at random are not read, and the card itself is pinned.
    assert "card" in finished(cell(copied, checkpoint="random")).pins


def test_weights_that_cannot_be_read_are_their_cell_s_own_failure(copied):
    path = copied / "lpd.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    prepared = prepare(cell(copied))
    with pytest.raises(CheckpointError, match=r"lpd\.safetensors"):
        load(prepared)


def test_options_that_stand_beside_the_weights_are_the_card_s(copied):
    path = copied / "lpd.safetensors"
    options = json.loads((copied / "lpd.json").read_text())["options"]
    stored = load_half(path)
    for said in (options, options | {"order": "raster"}):
        header = {"pardec": json.dumps(stored.config | {"options": said})}
        save_file(stored.tensors, path, metadata=header)
        if said == options:
            prepare(cell(copied))
    with pytest.raises(
        UserError, match=r"'zoo/lpd': its card says options\.order = 'locality', its weights 'raster'"
    ):
        prepare(cell(copied))


def test_the_cards_that_ship_say_what_their_weights_are():
    stems = zoo.names()
    networks = [*stems, *(name for stem in stems for name in zoo.marks(stem) if name not in stems)]
    assert "lpd" in networks
    assert "marks/raster-1x" in networks
    for name in networks:
        strategy = zoo.read_card(ZOO_PREFIX + name).strategy
        prepare(normalised(Cell(strategy, network=ZOO_PREFIX + name, threads=1)))
