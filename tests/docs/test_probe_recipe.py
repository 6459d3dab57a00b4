"""A probe is a leg of the recipe, shortened alike in every part, with the one setting changed."""

import dataclasses
import json
import sys

import pytest
import torch

from backbones.config import NetworkConfig, TrunkConfig
from harness.train.mark_trainer import TaughtImages
from harness.train.tier import Material
from pardec.errors import UserError
from tests.docs.blocks import ROOT

sys.path.append(str(ROOT / "docs"))

import probe_recipe
from probe_recipe import CHANGES, RECIPE, leg_of, probe

CONFIG = NetworkConfig(TrunkConfig(2, 16, 2, 32), codes=8, classes=3, grid=(3, 3))
OF_THE_RECIPE = {change: settings for change, settings in CHANGES.items() if "depth" not in settings}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Material:
    monkeypatch.setattr(probe_recipe, "RECIPE", dataclasses.replace(RECIPE, validation_images=8))
    generator = torch.Generator().manual_seed(0)
    taught = TaughtImages(
        torch.randint(0, 8, (48, 9), generator=generator, dtype=torch.uint8),
        torch.randint(0, 3, (48,), generator=generator),
    )
    return Material(taught, taught, CONFIG, {}, {})


@pytest.mark.parametrize("change", OF_THE_RECIPE)
def test_a_leg_has_the_shares_of_the_recipes_first_one(change: str) -> None:
    recipe = leg_of(dataclasses.replace(RECIPE, **OF_THE_RECIPE[change]), 12_000)
    assert recipe.end_of(1) * recipe.batch == 12_000
    share = RECIPE.warmup_steps / RECIPE.end_of(1)
    assert recipe.warmup_steps / recipe.end_of(1) == pytest.approx(share, rel=0.02)
    assert recipe.rate_share(recipe.warmup_steps) == 1
    with pytest.raises(UserError, match="no whole batches"):
        leg_of(recipe, 12_001)


def test_a_probe_changes_what_it_names_alone(given: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.train.mark_trainer.compile_taught", lambda network: False)
    found = {change: probe("raster", change, 32, given) for change in ("none", "rates-halved", "depth8")}
    sizes = {change: line["parameters"] for change, line in found.items()}
    assert sizes["none"] == sizes["rates-halved"] < sizes["depth8"]
    losses = {line["validation_loss"] for line in found.values()}
    assert len(losses) == len(found)
    assert probe("raster", "none", 32, given)["validation_loss"] == found["none"]["validation_loss"]
    assert json.loads(json.dumps(found["none"]))["change"] == "none"


def test_recorded_probes_have_the_recipe_beside_every_change() -> None:
    text = (ROOT / "results" / "recipe_probes.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    settings = {(line["strategy"], line["images"]) for line in lines}
    assert settings
    for strategy, images in settings:
        told = [line for line in lines if (line["strategy"], line["images"]) == (strategy, images)]
        changes = [line["change"] for line in told]
        assert "none" in changes
        assert len(changes) == len(set(changes)) > 1
        assert set(changes) <= CHANGES.keys()
        assert len({line["environment"]["host_cpu"] for line in told}) == 1
