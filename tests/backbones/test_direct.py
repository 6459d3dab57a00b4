"""Blocks called directly: the same numbers, hooks still heard, modules again afterwards, few calls."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.attention import View
from backbones.cache import KVCache
from backbones.controlled import CONTROLLED_TRUNK
from backbones.direct import called_directly
from backbones.positions import rotary_table
from backbones.products import can_pack, pack
from backbones.transformer import Trunk
from strategies.decoding import registry
from strategies.decoding.contract.recording import randomise, run, subject
from strategies.decoding.guidance import Guidance
from strategies.decoding.sampling import ForcedSampler
from tests.strategies.dressings import ADALN

CPU = torch.device("cpu")
ONEDNN = pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="needs oneDNN")
GELU = replace(CONTROLLED_TRUNK, norm="layer", mlp="gelu", bias=True, qk_norm=True, positions="learned")


class Step:
    """A decode step of two rows at slot 5."""

    def __init__(self, trunk, kind="self", dtype=torch.float32):
        self.trunk = Trunk(trunk, 2, kind).eval().requires_grad_(False)
        randomise(self.trunk, 0)
        self.trunk.to(dtype)
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(2, 1, trunk.width, generator=generator).to(dtype)
        phases = rotary_table((4, 4), trunk.head_width, trunk.rotary_base, CPU)[[5], None]
        self.phases = phases if trunk.positions == "rotary" else None
        self.cache = KVCache(trunk, 2, 16, dtype, CPU)
        self.cache.store.normal_(generator=generator)
        self.shared = None
        if kind == "cross":
            self.cache, self.shared = (
                None,
                self.cache.layers[0].extend(5, self.cache.layers[1].store[:, :, :1]),
            )
        self.adaln = self.trunk.modulations(self.x) if trunk.conditioning == "adaln" else None

    @torch.inference_mode()
    def __call__(self):
        return self.trunk(self.x, self.phases, View(start=5), self.cache, self.shared, self.adaln)


STEPS = {
    "small": lambda: Step(CONTROLLED_TRUNK),
    "bfloat16": lambda: Step(CONTROLLED_TRUNK, dtype=torch.bfloat16),
    "gelu": lambda: Step(GELU),
    "adaln": lambda: Step(ADALN.trunk),
    "cross": lambda: Step(CONTROLLED_TRUNK, "cross"),
}


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=ONEDNN)], ids=["plain", "packed"])
@pytest.mark.parametrize("name", STEPS)
def test_numbers_are_the_same(name, packed):
    step = STEPS[name]()
    if packed:
        pack(step.trunk, 2)
    expected = step()
    with called_directly(step.trunk):
        assert not isinstance(step.trunk.blocks[0].attention, torch.nn.Module)
        assert torch.equal(step(), expected)
    assert torch.equal(step(), expected)


def test_blocks_are_modules_again_also_after_an_error():
    trunk = STEPS["small"]().trunk
    before = {name: dict(module.__dict__) for name, module in trunk.named_modules()}
    with pytest.raises(KeyError), called_directly(trunk):
        raise KeyError
    assert {name: dict(module.__dict__) for name, module in trunk.named_modules()} == before


def test_weights_that_change_between_decodes_are_seen():
    step = STEPS["small"]()
    with called_directly(step.trunk):
        before = step()
    randomise(step.trunk, 1)
    expected = step()
    with called_directly(step.trunk):
        assert torch.equal(step(), expected)
    assert not torch.equal(expected, before)


def test_who_hooks_on_a_layer_or_block_hears_it():
    step, heard = STEPS["small"](), Counter()
    for name in ("blocks.0", "blocks.1.attention.qkv", "blocks.1.mlp"):
        step.trunk.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: heard.update([name]))
    with called_directly(step.trunk):
        step()
    assert heard == {"blocks.0": 1, "blocks.1.attention.qkv": 1, "blocks.1.mlp": 1}


def test_compiled_blocks_are_left_alone():
    trunk = STEPS["small"]().trunk
    trunk.run = lambda blocks, x, *rest: x
    with called_directly(trunk):
        assert isinstance(trunk.blocks[0].attention, torch.nn.Module)
        assert trunk.called is None


@pytest.mark.parametrize("name", ["raster", "arpg"])
def test_a_decode_calls_blocks_directly(name, monkeypatch):
    case, seen = subject(registry.get(name)), []
    inner = Trunk.forward

    def forward(trunk, *args, **named):
        seen.append(trunk.called is not None)
        return inner(trunk, *args, **named)

    monkeypatch.setattr(Trunk, "forward", forward)
    run(case, case.plan((0, 1)), torch.tensor([0, 1]), ForcedSampler(case.tokens(2)), Guidance(2.0))
    assert seen
    assert all(seen)


# Calls of a block ----------------------------------------------------------------------------------------


class PythonCalls(TorchFunctionMode):
    """What Python asks of torch, views included; reading an attribute is no call."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func.__name__ != "__get__":
            self.calls[func.__name__] += 1
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """What reaches torch's dispatcher."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("counter", [PythonCalls, Operations])
@pytest.mark.parametrize(("name", "most"), [("small", 24), ("bfloat16", 28), ("cross", 18)])
def test_a_block_of_the_small_trunk_makes_few_calls_into_torch(name, most, counter):
    step = STEPS[name]()
    with torch.inference_mode(), called_directly(step.trunk), counter() as seen:
        step()
    assert 2 * (most - 1) < sum(seen.calls.values()) <= 2 * most, dict(seen.calls)
