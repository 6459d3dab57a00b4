"""Raster: one token a step; its network is the plain trunk."""

from dataclasses import replace

import pytest
import torch

from backbones.first_weights import initialise
from backbones.transformer import parameter_count
from pardec.errors import UserError
from strategies.decoding.contract.recording import CONTROLLED, run, subject
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams
from strategies.published.llamagen import LLAMAGEN_DEFAULTS, llamagen_config, llamagen_setting
from strategies.raster import Raster


@pytest.fixture(scope="module")
def tiny():
    return subject(Raster())


def test_the_plan_is_one_token_per_step_row_by_row():
    plan = Raster().plan((3, 5), None, Streams(0, (0,)))
    assert plan.sizes == (1,) * 15
    assert plan.order.tolist() == [list(range(15))]


@pytest.mark.parametrize("steps", [1, 15, 17, 0])
def test_other_step_counts_are_refused(steps):
    with pytest.raises(UserError, match=f"steps = {steps}: strategy 'raster' on a 4x4 grid takes exactly 16"):
        Raster().plan((4, 4), steps, Streams(0, (0,)))


def test_explicit_sizes_other_than_its_own_are_refused():
    raster, streams = Raster(), Streams(0, (0,))
    assert raster.plan((4, 4), None, streams, sizes=(1,) * 16).steps == 16
    for sizes in ((4, 4, 4, 4), (2, *(1,) * 14)):
        with pytest.raises(UserError, match=r"takes exactly 16|fixed group sizes"):
            raster.plan((4, 4), None, streams, sizes=sizes)


def test_one_row_per_step_and_the_last_token_is_never_fed(tiny):
    plan = tiny.plan((0,))
    found = run(tiny, plan, torch.zeros(1, dtype=torch.int64), ForcedSampler(tiny.tokens(1))).decoded
    assert found.forwards == found.tokens_processed == 16
    assert tiny.strategy.cache_shape(tiny.config) == (2, 16)


@pytest.mark.parametrize("drop", [0.0, 0.1])
def test_the_null_class_exists_exactly_where_labels_are_dropped(drop):
    names = {**LLAMAGEN_DEFAULTS, "n_layer": 1, "dim": 32, "n_head": 4, "class_dropout_prob": drop}
    config = llamagen_config(names)
    with torch.device("meta"):
        network = Raster().network(config)
    assert config.null_class == (drop > 0)
    assert network.class_embedding.num_embeddings == 1000 + (drop > 0)


@pytest.mark.parametrize(("scale", "guided"), [(0.0, False), (0.5, False), (1.0, False), (1.01, True)])
def test_published_guidance_is_on_above_one_only(scale, guided):
    setting = llamagen_setting({"cfg_scale": scale, "cfg_interval": 3.0})
    assert (setting.guidance is not None) == guided
    if guided:
        assert setting.guidance.interval == 3


def test_an_untrained_network_is_uniform(tiny):
    network = Raster().network(CONTROLLED)
    initialise(network, torch.Generator().manual_seed(0))
    tokens, labels = tiny.tokens(3), torch.tensor([0, 1, 3])
    lesson = Raster().lesson(3, (4, 4), torch.Generator(), 0.0)
    loss = Raster().loss(network, tokens, labels, lesson).detach()
    assert float(loss) == pytest.approx(torch.tensor(11.0).log().item(), abs=1e-6)


def test_parameters_follow_the_published_formula():
    width, codes, classes, depth, hidden = 32, 11, 3, 2, 64
    expected = (classes + 1) * width + 2 * codes * width + width
    expected += depth * (4 * width**2 + 3 * width * hidden + 2 * width)
    assert parameter_count(Raster().network(CONTROLLED)) == expected
    grouped = replace(CONTROLLED, trunk=replace(CONTROLLED.trunk, kv_heads=1))
    saved = depth * 2 * width * (width - width // 4)
    assert parameter_count(Raster().network(grouped)) == expected - saved
