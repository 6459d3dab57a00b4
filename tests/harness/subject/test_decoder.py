"""``decoder = "robust"``: the same tokens, drawn by another decoder of the same codes."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from backbones.tokenizers import load_tokenizer
from backbones.weights import save_half
from harness.cell.cell import Cell, normalised
from harness.subject.pins import finished
from harness.subject.prepare import prepare
from harness.subject.subject import load, run_batch
from harness.sweep.row import tokenizer_name
from pardec.errors import UserError


@pytest.fixture(scope="module")
def zoo(small_zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small zoo with a robust decoder: the tokenizer, its last bias moved."""
    folder = shutil.copytree(small_zoo, tmp_path_factory.mktemp("robust") / "zoo")
    tokenizer = load_tokenizer(folder / "tokenizer.safetensors")
    with torch.no_grad():
        for name, weight in tokenizer.named_parameters():
            if name.startswith("decoder"):
                weight.add_(0.25)
    config = {"kind": "fsq", **dataclasses.asdict(tokenizer.config)}
    save_half(tokenizer, folder / "robust.safetensors", config)
    return str(folder)


def test_the_same_tokens_become_other_images(zoo: str) -> None:
    own, robust = (
        finished(normalised(Cell("lpd", steps=6, batch=4, decoder=decoder, zoo=zoo, threads=1)))
        for decoder in ("own", "robust")
    )
    assert own.key != robust.key
    assert own.pins["tokenizer"] != robust.pins["tokenizer"]
    assert (tokenizer_name(own), tokenizer_name(robust)) == ("zoo/tokenizer", "zoo/robust")
    batches = [run_batch(load(prepare(cell)), range(4)) for cell in (own, robust)]
    assert torch.equal(batches[0].decoded.tokens, batches[1].decoded.tokens)
    assert not torch.equal(batches[0].pixels, batches[1].pixels)


def test_codes_of_another_tokenizer_have_no_robust_decoder(zoo: str) -> None:
    with pytest.raises(UserError, match="decoder = 'robust': expected 'own', for strategy 'raster'"):
        finished(normalised(Cell("raster", network="llamagen-l-256", checkpoint="random", decoder="robust")))
