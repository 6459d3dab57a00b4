"""Next-scale decoders on a zoo: their own tokenizer, what is lent of it, rows of a network and of a pair."""

import dataclasses
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.checkpoints import CheckpointError
from backbones.config import NetworkConfig
from backbones.tokenizers import load_tokenizer
from backbones.tokenizers.multiscale import SIDES, MultiScaleConfig, MultiScaleTokenizer
from backbones.weights import save_half
from harness.cell.cell import Cell, normalised
from harness.measure import measure
from harness.subject.pins import finished
from harness.subject.prepare import prepare
from harness.subject.subject import Gallery, _lend, load, run_batch
from harness.train.store_zoo import store_zoo
from harness.train.trainer import Recipe, Trainer
from harness.weights import zoo as zoos
from pardec.errors import UserError
from pardec.hashing import file_sha256
from strategies.decoding import registry
from strategies.decoding.networks import network_of
from tests.harness.small_published import row_of
from tests.harness.small_zoo import TRUNK, make_zoo

CODES = MultiScaleConfig(codes=64, sides=(1, 2, 3, 4), image_size=(8, 8), encoder_width=4, decoder_width=4)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    """Networks of both sizes, as ``pardec train var`` and ``--size small`` store them."""
    folder = make_zoo(tmp_path_factory.mktemp("zoo"), ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        tokenizer = MultiScaleTokenizer(CODES)
    save_half(tokenizer, folder / "multiscale.safetensors", {"kind": "multiscale", **asdict(CODES)})
    config = NetworkConfig(TRUNK, 64, 10, (4, 4))
    for size, trunk in (("", TRUNK), ("small", dataclasses.replace(TRUNK, depth=1, width=16, heads=2))):
        own = dataclasses.replace(config, trunk=trunk)
        trainer = Trainer(
            registry.get("var"),
            own,
            Recipe(),
            folder / f"run{size}",
            tokenizer=load_tokenizer(folder / "multiscale.safetensors"),
        )
        with torch.no_grad():
            trainer.averaged.module.head.weight.normal_(std=0.2)
        store_zoo(trainer, folder, {}, size)
    return folder


def cell(strategy: str, zoo: Path, **changes) -> Cell:
    whole = {"zoo": str(zoo), "threads": 1, "batch": 2, "images": 4, "lossiness_images": 0}
    return normalised(Cell(strategy, **whole | changes))


def test_a_network_decodes_by_the_quantiser_of_its_tokenizer(zoo):
    found = finished(cell("var", zoo))
    assert found.pins["tokenizer"] == file_sha256(zoo / "multiscale.safetensors")
    subject = load(prepare(found))
    own = load_tokenizer(zoo / "multiscale.safetensors").quantiser
    assert torch.equal(subject.network.quantiser.codebook.weight, own.codebook.weight)
    assert torch.equal(subject.network.quantiser.filters[3].weight, own.filters[3].weight)
    assert run_batch(subject, range(2)).pixels.shape == (2, 3, 8, 8)


def test_a_film_grows_sharper_and_the_order_shows_every_map(zoo):
    subject, gallery = load(prepare(finished(cell("var", zoo)))), Gallery()
    gallery.add(subject, run_batch(subject, range(2)))
    assert gallery.film.shape == (5, 8, 8, 3)
    assert np.array_equal(gallery.film[-1], gallery.pixels[0][0].permute(1, 2, 0).numpy())
    assert all((one != other).any() for one, other in zip(gallery.film, gallery.film[1:], strict=False))
    shown = gallery.step_of_position
    assert shown.shape == (4, 1 + 1 + 2 + 1 + 3 + 1 + 4)
    assert [int((shown == step).sum()) for step in range(4)] == [1, 4, 9, 16]
    assert (shown[:, 1] == -1).all()


def test_the_row_of_a_pair(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "BATCHES", (1,))
    whole = finished(cell("code", zoo))
    assert whole.roles == {"drafter": "zoo/var", "refiner": "zoo/var-small"}
    row = row_of(whole, tmp_path, monkeypatch)
    drafter, refiner = row.networks
    assert row.tokenizer == "zoo/multiscale"
    assert (drafter["forwards"], refiner["forwards"], row.forwards, row.steps) == (2, 2, 4, 4)
    assert (drafter["tokens_processed"], refiner["tokens_processed"]) == (5, 30)
    assert drafter["sha256"] == file_sha256(zoo / "var.safetensors")
    assert refiner["sha256"] == file_sha256(zoo / "var-small.safetensors")
    assert row.draft_tokens is None, "a drafter's maps stay: they are no drafts"
    assert row.flops_per_image > 0


def test_its_reconstructions_are_an_anchor_of_their_own(zoo):
    anchors = [finished(cell(name, zoo)) for name in ("reconstruction", "reconstruction-multiscale")]
    names = ("tokenizer", "multiscale")
    for anchor, name in zip(anchors, names, strict=True):
        assert anchor.pins["tokenizer"] == file_sha256(zoo / f"{name}.safetensors")
    assert anchors[0].key != anchors[1].key


def test_trained_networks_need_their_own_tokenizer(zoo):
    subject = prepare(finished(cell("var", zoo)))
    network = network_of(subject.strategy, subject.config)
    with pytest.raises(UserError, match=r"decodes through its tokenizer: it needs tokenizer_checkpoint"):
        _lend(None, network, subject.cell)
    other = MultiScaleTokenizer(dataclasses.replace(CODES, codes=8))
    with pytest.raises(CheckpointError, match=r"and its tokenizer: 'codebook.weight' is"):
        _lend(other, network, subject.cell)


def test_scales_are_those_that_the_network_learned(zoo):
    assert (
        run_batch(load(prepare(cell("var", zoo, options={"scales": "1 2 3 4"}))), range(2)).pixels is not None
    )
    with pytest.raises(UserError, match=r"maps of .* 4x4, but 'zoo/var' was trained on 1x1 2x2 3x3 4x4"):
        prepare(cell("var", zoo, options={"scales": "1 2 4"}))


def test_scales_are_those_of_the_tokenizer_that_lends(zoo):
    sides = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
    assert len(sides) == len(SIDES), "so that no parameter is of another shape"
    network = registry.get("var", scales=" ".join(map(str, sides))).network(
        NetworkConfig(TRUNK, 64, 10, (16, 16))
    )
    tokenizer = MultiScaleTokenizer(MultiScaleConfig(encoder_width=4, decoder_width=4))
    with pytest.raises(
        CheckpointError, match=r"and its tokenizer: maps of sides \[1, .* 13, 16\], expected \[1, .* 12, 16\]"
    ):
        _lend(tokenizer, network, cell("var", zoo))


def test_a_missing_network_says_how_to_train_it(zoo):
    with pytest.raises(UserError, match="pardec train var --size small"):
        zoos.read_card("zoo/var-small", zoo / "nowhere")
