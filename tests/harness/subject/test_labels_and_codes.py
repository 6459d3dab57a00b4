"""CTF at work: a canvas of labels and codes, of which the codes alone are the image."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones.config import NetworkConfig
from backbones.tokenizers import load_tokenizer
from harness.cell.cell import Cell, normalised
from harness.images.pixels import detokenize, film_of
from harness.measure import measure
from harness.subject.pins import finished
from harness.subject.prediction import predict
from harness.subject.prepare import prepare
from harness.subject.subject import Gallery, load, run_batch
from harness.train.mark_recipe import MarkRecipe
from harness.train.mark_trainer import MarkTrainer, TaughtImages
from harness.train.store_zoo import store_zoo
from harness.train.trainer import Recipe, Trainer
from pardec.errors import UserError
from results.schema import row_from_json, row_to_json
from strategies.decoding import registry
from tests.harness.small_published import row_of
from tests.harness.small_zoo import TRUNK, make_zoo

CONFIG = NetworkConfig(TRUNK, 64, 10, (8, 8))
GREY = 127


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    folder = make_zoo(tmp_path_factory.mktemp("zoo"), ())
    vectors = load_tokenizer(folder / "tokenizer.safetensors").vectors()
    trainer = Trainer(registry.get("ctf"), CONFIG, Recipe(), folder / "run", code_vectors=vectors)
    with torch.no_grad():
        for network in trainer.averaged.module.roles.values():
            network.head.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
    store_zoo(trainer, folder, {})
    return folder


def cell(zoo: Path, **changes) -> Cell:
    return normalised(Cell("ctf", **{"zoo": str(zoo), "threads": 1, "batch": 2, "images": 4} | changes))


def test_the_codes_are_the_image(zoo):
    subject = load(prepare(finished(cell(zoo))))
    batch = run_batch(subject, range(2))
    assert batch.decoded.tokens.shape == (2, 128)
    assert torch.equal(batch.codes, batch.decoded.tokens[:, 64:])
    assert torch.equal(batch.pixels, detokenize(subject.tokenizer, batch.codes))
    assert {role: count.forwards for role, count in batch.decoded.counts.items()} == {"coarse": 64, "fine": 1}


def test_the_film_shows_labels_by_codes_that_stand_for_them_and_ends_with_the_image(zoo):
    subject = load(prepare(finished(cell(zoo))))
    gallery = Gallery()
    batch = run_batch(subject, range(2))
    gallery.add(subject, batch)
    assert np.array_equal(gallery.step_of_position, np.arange(64).reshape(8, 8))  # of the labels
    film = film_of(subject.tokenizer, batch.decoded.order, batch.decoded.trace, 64)
    assert film.shape == (66, 32, 32, 3)
    assert (film[0] == GREY).all()
    labels = detokenize(subject.tokenizer, batch.decoded.tokens[:1, :64])[0].permute(1, 2, 0).numpy()
    assert np.array_equal(film[64], labels)
    assert np.array_equal(film[65], batch.pixels[0].permute(1, 2, 0).numpy())
    half = film[32].reshape(8, 4, 8, 4, 3)
    assert (half[4:] == GREY).all()
    assert (half[:4] != GREY).any()


def test_a_row_counts_both_networks(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "BATCHES", (1,))
    whole = finished(cell(zoo, lossiness_images=0))
    row = row_of(whole, tmp_path, monkeypatch)
    assert row.status == "ok", row.error
    coarse, fine = row.networks
    assert (coarse["role"], fine["role"]) == ("coarse", "fine")
    assert (coarse["forwards"], fine["forwards"], row.forwards, row.steps) == (64, 1, 65, 65)
    assert (coarse["tokens_processed"], fine["tokens_processed"]) == (64, 65)
    assert row.parameters == coarse["parameters"] + fine["parameters"]
    assert fine["cache_bytes"] == 0
    assert row.cache_bytes == coarse["cache_bytes"] == predict(prepare(whole)).cache_bytes > 0
    assert row_from_json(row_to_json(row)) == row


def test_what_a_card_was_trained_for_is_what_decodes(zoo):
    with pytest.raises(UserError, match="need a network of"):
        prepare(cell(zoo, options={"clusters": 5}))


def test_a_run_from_mark_to_mark_learns_both_stages_and_keeps_its_clusters(zoo, tmp_path):
    tokenizer = load_tokenizer(zoo / "tokenizer.safetensors")
    strategy = registry.get("ctf")
    recipe = dataclasses.replace(MarkRecipe(), base_images=64, marks=(1,), batch=4, warmup_steps=2)
    made = [
        MarkTrainer(strategy, CONFIG, recipe, tmp_path, {}, compiled=False, code_vectors=tokenizer.vectors())
        for _ in range(2)
    ]
    before = {role: one.trunk.blocks[0].mlp.up.weight.clone() for role, one in made[0].network.roles.items()}
    codes = torch.randint(64, (8, 64), generator=torch.Generator().manual_seed(0))
    data = TaughtImages(codes, torch.arange(8))
    for _ in range(3):
        made[0].train_step(data)
    made[0].save()
    assert made[1].resume()
    for role, weight in before.items():
        learned = made[1].network[role].trunk.blocks[0].mlp.up.weight
        assert not torch.equal(learned, weight)
        assert torch.equal(learned, made[0].network[role].trunk.blocks[0].mlp.up.weight)
    clusters = made[1].network["fine"].cluster_of
    assert torch.equal(clusters, made[0].network["fine"].cluster_of)
    assert len(clusters.unique()) == 16
    with pytest.raises(UserError, match="strategy 'ctf' learns from vectors of codes"):
        MarkTrainer(strategy, CONFIG, recipe, tmp_path / "other", {}, compiled=False)
