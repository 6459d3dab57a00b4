"""A network that was trained at scale decodes by the path of its weights, in the published tier."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from backbones.config import NetworkConfig
from harness.cell.cell import Cell
from harness.cli import main
from harness.subject.pins import finished
from harness.subject.prepare import prepare
from harness.subject.subject import load, run_batch
from harness.train import recipes
from harness.train.store_zoo import store_zoo
from harness.train.trainer import Trainer
from pardec.errors import UserError
from strategies.decoding import registry
from strategies.decoding.contract.recording import CONTROLLED, randomise

GRID = (3, 3)
CONFIG = NetworkConfig(CONTROLLED.trunk, 16384, 5, GRID)
TOKENIZER = "vq-llamagen"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Trainer, Path]:
    folder = tmp_path_factory.mktemp("lpd-llamagen-b")
    recipe = recipes.preset("lpd").recipe(100, batch=4, steps=1)
    trainer = Trainer(registry.get("lpd"), CONFIG, recipe, folder)
    randomise(trainer.network)
    path = store_zoo(trainer, folder, {"tokenizer": TOKENIZER, "tokenizer_sha256": "ab"})
    return trainer, path


def cell_of(path: Path, **changes: object) -> Cell:
    settings = {"strategy": "lpd", "network": str(path), "steps": 3, "guidance": 2.0, "images": 2, "batch": 2}
    return Cell(**{**settings, **changes})  # type: ignore[arg-type]


def test_its_tokens_are_those_of_the_trained_network(trained, tmp_path):
    trainer, path = trained
    subject = load(prepare(cell_of(path, checkpoints=str(tmp_path))))
    assert subject.tokenizer is None  # no such file here
    kept = {name: tensor.half().float() for name, tensor in trainer.kept.state_dict().items()}
    assert all(torch.equal(tensor, kept[name]) for name, tensor in subject.network.state_dict().items())
    tokens = run_batch(subject, range(2)).codes
    assert tokens.shape == (2, 9)
    assert subject.prepared.cell.label.startswith("LPD, lpd-llamagen-b")


def test_its_result_goes_by_its_weights_and_not_by_their_place(trained, tmp_path):
    _, path = trained
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(path.read_bytes())
    cells = [dataclasses.replace(finished(cell_of(one)), label="") for one in (path, moved)]
    assert cells[0].pins["network"] == cells[1].pins["network"]
    assert cells[0].key == cells[1].key


def test_a_tokenizer_of_other_weights_is_refused(trained, tmp_path):
    _, path = trained
    (tmp_path / "vq.pt").write_bytes(b"another")
    with pytest.raises(UserError, match="learned codes of a tokenizer file with sha256 ab, but"):
        prepare(cell_of(path, tokenizer_checkpoint=str(tmp_path / "vq.pt"), checkpoint=str(path)))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.safetensors", "none.safetensors': no such file"),
        ("empty.safetensors", "network '"),
        ("zoo.safetensors", "not trained on the codes of a published tokenizer; a network of a zoo"),
        ("odd.safetensors", "its header can't be read"),
    ],
)
def test_other_files_are_refused_in_one_line(trained, tmp_path, capsys, name, told):
    trainer, _ = trained
    store_zoo(trainer, tmp_path, {"tokenizer_sha256": "ab"}).rename(tmp_path / "zoo.safetensors")
    store_zoo(trainer, tmp_path, {"tokenizer": 7}).rename(tmp_path / "odd.safetensors")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    assert main(["explain", f"strategy=lpd,network={tmp_path / name},steps=3"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_another_strategy_does_not_decode_it(trained):
    _, path = trained
    with pytest.raises(UserError, match="is for strategy 'lpd', not 'raster'"):
        prepare(cell_of(path, strategy="raster", steps=9))


def test_its_header_tells_all_that_decoding_needs(trained):
    trainer, path = trained
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["tokenizer"] == TOKENIZER
    prepared = prepare(cell_of(path, checkpoint="random"))
    assert prepared.config == trainer.config
    assert prepared.cell.network == str(path)
