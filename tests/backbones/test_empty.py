"""Modules without memory: nothing drawn, and the same tensors as the module built outright."""

import torch
from torch import nn

from backbones.empty import with_memory, without_memory


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.map = nn.Conv2d(3, 4, 3)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))


def test_nothing_is_held_and_nothing_drawn():
    before = torch.get_rng_state()
    with without_memory():
        module = Parts()
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)


def test_memory_comes_with_the_types_and_shapes_of_the_module():
    with without_memory():
        module = Parts().to(torch.bfloat16)
    module = with_memory(module, "cpu")
    expected = Parts().to(torch.bfloat16).state_dict()
    found = module.state_dict()
    assert {name: (one.shape, one.dtype, one.device, one.stride()) for name, one in found.items()} == {
        name: (one.shape, one.dtype, one.device, one.stride()) for name, one in expected.items()
    }
    assert all(one.requires_grad for one in module.parameters())
    module.load_state_dict(expected)
    assert torch.equal(module.table.weight, expected["table.weight"])


def test_outside_the_context_first_weights_are_drawn():
    with without_memory():
        Parts()
    torch.manual_seed(0)
    assert nn.Embedding(50, 4).weight.std() > 0.5
