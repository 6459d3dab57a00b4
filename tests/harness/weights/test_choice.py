"""Which of several weights in a file a cell runs with: chosen by the cell, told by the loaded network."""

from pathlib import Path

import pytest
import torch

from backbones.checkpoints import CheckpointError
from harness.cell.cell import Cell
from harness.subject.pins import finished
from harness.subject.prepare import prepare
from harness.subject.subject import load
from harness.sweep.find import find_cell
from pardec.errors import UserError
from strategies.decoding.registry import by_family
from tests.backbones.published_files import to_published
from tests.harness.small_published import cell, row_of, small_presets  # noqa: F401

OFFSET = 0.25


@pytest.fixture
def file(tmp_path: Path, small_presets: Path) -> Path:  # noqa: F811
    """A published network in training's layout, its average ``OFFSET`` above it."""
    network = load(prepare(cell())).network
    state = to_published(network, by_family("par").keys)
    average = {f"module.{key}": value + OFFSET for key, value in state.items()}
    torch.save({"model": state, "ema": average, "optimizer": {}}, tmp_path / "both.pt")
    return tmp_path / "both.pt"


def test_the_choice_is_loaded_and_told(file, caplog):
    found = {
        weights: load(prepare(cell(checkpoint=str(file), weights=weights)))
        for weights in (None, "model", "ema")
    }
    assert {asked: subject.weights_taken for asked, subject in found.items()} == {
        None: "model",
        "model": "model",
        "ema": "ema",
    }
    trained, average = (found[name].network.state_dict() for name in ("model", "ema"))
    assert all(torch.allclose(average[name], value + OFFSET) for name, value in trained.items())
    (note,) = [record.getMessage() for record in caplog.records]
    assert "'ema' (other values); --weights ema chooses" in note


def test_what_was_taken_stands_in_the_row(file, tmp_path, monkeypatch):
    row = row_of(cell(checkpoint=str(file), tokenizer_checkpoint=None, images=2), tmp_path, monkeypatch)
    assert (row.weights_taken, row.settings["weights"]) == ("model", None)


def test_the_choice_makes_another_result(file):
    keys = {finished(cell(checkpoint=str(file), weights=weights)).key for weights in (None, "ema")}
    assert len(keys) == 2
    assert "weights" not in Cell("par").content()  # earlier results keep their names


def test_choices_that_can_not_be_made_are_one_line(file, small_zoo):
    with pytest.raises(CheckpointError, match="no weights 'emma': did you mean 'ema'"):
        prepare(cell(checkpoint=str(file), weights="emma"))
    with pytest.raises(UserError, match="weights 'ema' of no file"):
        prepare(cell(weights="ema"))
    with pytest.raises(UserError, match="weights 'ema' of no file"):
        prepare(cell(tokenizer_weights="ema"))
    with pytest.raises(UserError, match="'zoo/lpd' has one state of weights: weights must be absent"):
        prepare(Cell("lpd", zoo=str(small_zoo), weights="ema"))


def test_an_inline_cell_chooses(file):
    text = f"strategy=par,network=small-par,checkpoint={file},weights=ema"
    assert find_cell(text, {}, None).weights == "ema"


@pytest.mark.parametrize(
    ("make", "says"), [(Path.mkdir, "a folder; expected a file"), (lambda path: None, "no such file")]
)
def test_a_checkpoint_that_can_not_be_opened_is_told_before_anything_runs(file, tmp_path, make, says):
    path = tmp_path / "other.pt"
    make(path)
    with pytest.raises(UserError, match=f"network 'small-par': '{path}': {says}"):
        prepare(cell(checkpoint=str(path)))
