"""Packed products: the same numbers as plain ones, every strategy decodes through them, no weight lost."""

from unittest.mock import patch

import pytest
import torch

from backbones.config import NetworkConfig, TrunkConfig
from backbones.products import PackedLinear, can_pack, pack, weight_bytes
from harness.cell.cell import Cell
from harness.subject.prepare import prepare
from strategies.decoding.decode import decode
from strategies.decoding.guidance import Guidance
from strategies.decoding.registry import get, trained
from strategies.decoding.sampling import ForcedSampler
from strategies.decoding.streams import Streams

pytestmark = pytest.mark.skipif(
    not can_pack(torch.device("cpu"), torch.float32), reason="torch without oneDNN has no packed product"
)
CONFIG = NetworkConfig(TrunkConfig(depth=2, width=32, heads=2, mlp_width=64), 16, 3, (4, 4))


def filled(name: str, dtype: torch.dtype):
    network = get(name).network(CONFIG).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.normal_(std=0.2, generator=generator)
    return network.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 24), (5, 24), (3, 7, 24)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_product_is_the_plain_one(dtype, shape, bias):
    layer = torch.nn.Linear(24, 40, bias=bias).requires_grad_(False).to(dtype)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = PackedLinear(layer.weight, layer.bias, 5)(x)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), layer(x).float(), atol=1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("name", trained())
def test_a_packed_network_decodes_to_the_same_logits(name):
    strategy, network = get(name), filled(name, torch.float32)
    plan = strategy.plan(CONFIG.grid, None, Streams(0, (0, 1)))
    tokens = torch.randint(16, (2, plan.places), generator=torch.Generator().manual_seed(2))
    sampler = Recorder(tokens)
    decode(network, strategy, plan, torch.tensor([0, 2]), sampler, Guidance(2.0))
    plain = sampler.seen
    before = weight_bytes(network)
    pack(network, 4)
    assert not [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    assert weight_bytes(network) == before
    sampler = Recorder(tokens)
    decode(network, strategy, plan, torch.tensor([0, 2]), sampler, Guidance(2.0))
    assert len(sampler.seen) == len(plain) == plan.steps
    for found, expected in zip(sampler.seen, plain, strict=True):
        assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


class Recorder(ForcedSampler):
    """Forced tokens; keeps the logits of every step."""

    def __init__(self, tokens):
        super().__init__(tokens)
        object.__setattr__(self, "seen", [])

    def draw(self, logits, noise):
        self.seen.append(logits.clone())
        return super().draw(logits, noise)


def test_what_cannot_be_packed_says_so():
    with pytest.raises(ValueError, match="no packed product"):
        pack(torch.nn.Sequential(torch.nn.Linear(2, 2).to(torch.float64)), 1)
    assert not can_pack(torch.device("meta"), torch.float32)
    assert not can_pack(torch.device("cpu"), torch.float16)


def test_auto_is_packed_where_there_is_a_packed_product():
    """The choice is part of the cell that runs, so that a row says what it was."""
    cell = Cell("raster", network="llamagen-b-256", checkpoint="random", products="auto")
    assert prepare(cell).cell.products == "packed"
    with patch("harness.subject.prepare.can_pack", return_value=False):
        assert prepare(cell).cell.products == "plain"
