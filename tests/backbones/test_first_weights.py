"""First weights: alike for all, and those of the papers."""

import math

import pytest
import torch

from backbones.first_weights import initialise
from harness.train import recipes
from strategies.decoding import registry
from strategies.decoding.contract.recording import CONTROLLED
from strategies.lpd import LPD
from strategies.maskgit import MaskGIT
from strategies.rar import RAR
from strategies.var import VAR
from tests.strategies.dressings import ADALN, COSINE, MASKED, SHARED

TRAINED = [name for name in registry.BUILT_IN if registry.get(name).base is None]


@pytest.mark.parametrize("name", TRAINED)
def test_initial_weights(name):
    network = registry.get(name).network(CONTROLLED)
    initialise(network, torch.Generator().manual_seed(0))
    for key, parameter in network.named_parameters():
        if key.startswith("head") or key.endswith("bias"):
            assert (parameter == 0).all()
        elif "norm" in key:
            assert (parameter == 1).all()
        else:
            assert float(parameter.std()) == pytest.approx(0.02, rel=0.5)
    again = registry.get(name).network(CONTROLLED)
    initialise(again, torch.Generator().manual_seed(0))
    assert all(map(torch.equal, network.parameters(), again.parameters()))


def test_initial_weights_fill_every_parameter():
    """Also where memory was only asked for, as for random weights at full size."""
    for config in (COSINE, SHARED):
        network = VAR(scales="1 2 3 4").network(config)
        for parameter in network.parameters():
            parameter.data.fill_(float("nan"))
        initialise(network, torch.Generator().manual_seed(0))
        assert all(parameter.isfinite().all() for parameter in network.parameters())
        factors = [one for key, one in network.named_parameters() if key.endswith("log_factor")]
        assert all(torch.allclose(one.exp(), torch.tensor(4.0)) for one in factors)


def test_initial_weights_of_a_modulated_network():
    network = RAR().network(ADALN)
    initialise(network, torch.Generator().manual_seed(0))
    for key, parameter in network.named_parameters():
        if key.endswith("bias"):
            assert (parameter == 0).all()
        elif "_norm" in key or ".norm" in key:
            assert (parameter == 1).all()


def test_rar_begins_with_blocks_that_do_nothing():
    network = RAR().network(ADALN)
    initialise(network, torch.Generator().manual_seed(0), recipes.preset("rar").first)
    modulations = [one for key, one in network.named_parameters() if "modulation" in key]
    assert len(modulations) == 2 * (ADALN.trunk.depth + 1)
    assert not any(one.any() for one in (*modulations, network.start))
    assert float(network.head.weight.std()) == pytest.approx(0.02, rel=0.1)


def uniform(matrix: torch.Tensor, bound: float) -> bool:
    return 0.9 * bound < float(matrix.abs().max()) <= bound and float(matrix.std()) == pytest.approx(
        bound / math.sqrt(3), rel=0.15
    )


def test_lpd_begins_with_xaviers_matrices():
    network = LPD().network(CONTROLLED)
    initialise(network, torch.Generator().manual_seed(0), recipes.preset("lpd").first)
    width = CONTROLLED.trunk.width
    block = network.trunk.blocks[0]
    assert uniform(block.attention.qkv.weight, math.sqrt(6 / (4 * width)))
    assert uniform(network.head.weight, math.sqrt(6 / (width + CONTROLLED.codes)))
    assert float(network.token_embedding.weight.std()) == pytest.approx(0.02, rel=0.1)


def test_maskgits_stacked_matrices_begin_like_its_single_ones():
    network = MaskGIT().network(MASKED)
    initialise(network, torch.Generator().manual_seed(0), recipes.preset("maskgit").first)
    width, block = MASKED.trunk.width, network.trunk.blocks[0]
    attended = MASKED.trunk.heads * MASKED.trunk.head_width
    assert uniform(block.attention.qkv.weight, math.sqrt(6 / (width + attended)))
    assert uniform(block.mlp.up.weight, math.sqrt(6 / (width + MASKED.trunk.mlp_width)))
    assert uniform(block.attention.out.weight, math.sqrt(6 / (attended + width)))
    assert not block.modulation.weight.any()
    assert uniform(network.final_modulation.weight, math.sqrt(6 / (3 * width)))
