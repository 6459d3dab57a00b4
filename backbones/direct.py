"""Blocks without what ``nn.Module`` adds to a call: for as long as a decode runs.

A decode step multiplies few rows, so a block's time is in good part the host's: a call of a module looks for
hooks, and whatever it reads of itself is looked up in three dictionaries. Meanwhile layers and weights are
plain attributes, and calling a layer calls its ``forward``. What is computed is the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from backbones.transformer import Block, Trunk, run_blocks


@contextmanager
def called_directly(network: nn.Module) -> Iterator[None]:
    """Inside, no block of ``network`` may be given other layers or weights.

    Layers that somebody hooks on stay modules, and so do compiled blocks, whose graphs watch them.
    """
    plain = [
        (owner, _attributes(owner))
        for trunk in network.modules()
        if isinstance(trunk, Trunk) and trunk.run is run_blocks
        for block in trunk.blocks
        for owner in block.modules()
    ]
    for owner, attributes in plain:
        owner.__dict__.update(attributes)
    try:
        yield
    finally:
        for owner, attributes in plain:
            for name in attributes:
                owner.__dict__.pop(name, None)


def _attributes(owner: nn.Module) -> dict[str, object]:
    """Weights and layers of a module; what a block's ``modulation`` is, the trunk asks the module."""
    layers = {
        name: layer.forward
        for name, layer in owner.named_children()
        if not (isinstance(owner, Block) and name == "modulation" or layer._forward_pre_hooks or layer._forward_hooks)
    }
    return {**dict(owner.named_parameters(recurse=False)), **layers}
