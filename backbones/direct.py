"""Blocks without what ``nn.Module`` adds to a call, for as long as a decode runs.

A decode step multiplies few rows, so a block's time is in good part the host's: whoever calls a module looks
for hooks, and what it reads of itself is looked for in four dictionaries. Meanwhile layers and weights are
plain attributes, and a layer is its ``forward``. What is computed is the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from backbones.transformer import Trunk, run_blocks


@contextmanager
def called_directly(network: nn.Module) -> Iterator[None]:
    """Inside, no block of ``network`` may be given other layers or weights.

    Modules that somebody hooks on stay modules, and so do compiled blocks, whose graphs watch them.
    """
    trunks = [part for part in network.modules() if isinstance(part, Trunk) and part.run is run_blocks]
    plain = [
        (owner, _attributes(owner)) for trunk in trunks for block in trunk.blocks for owner in block.modules()
    ]
    for owner, attributes in plain:
        owner.__dict__.update(attributes)
    for trunk in trunks:
        trunk.called = [block if _hooked(block) else block.forward for block in trunk.blocks]
    try:
        yield
    finally:
        for trunk in trunks:
            trunk.called = None
        for owner, attributes in plain:
            for name in attributes:
                owner.__dict__.pop(name, None)


def _attributes(owner: nn.Module) -> dict[str, object]:
    """Weights and layers of a module, but not a block's ``modulation``, which the trunk asks for."""
    layers = {
        name: layer.forward
        for name, layer in owner.named_children()
        if name != "modulation" and not _hooked(layer)
    }
    return {**owner._parameters, **layers}


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks)
