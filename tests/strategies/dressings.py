"""Tiny configurations in the style of the published networks."""

from dataclasses import replace

from backbones.config import NetworkConfig, TrunkConfig
from strategies.decoding.contract.recording import CONTROLLED


def with_trunk(**changes: object) -> NetworkConfig:
    """The shared trunk in miniature with some settings changed."""
    return replace(CONTROLLED, trunk=replace(CONTROLLED.trunk, **changes))


GROUPED = with_trunk(kv_heads=2)
LEARNED = NetworkConfig(
    TrunkConfig(
        depth=2,
        width=32,
        heads=4,
        mlp_width=64,
        norm="layer",
        norm_eps=1e-6,
        mlp="gelu",
        bias=True,
        positions="learned",
    ),
    codes=11,
    classes=3,
    grid=(4, 4),
)
"""LPD's: LayerNorm, GELU, biases, learned positions."""
ADALN = replace(LEARNED, trunk=replace(LEARNED.trunk, qk_norm=True, conditioning="adaln"))
"""RAR's: the same with normalised queries and keys, and modulation by class and step."""
MASKED = NetworkConfig(
    TrunkConfig(
        depth=2,
        width=32,
        heads=3,
        head_size=10,
        mlp_width=64,
        qk_norm="rms",
        positions="learned",
        conditioning="adaln",
    ),
    codes=11,
    classes=3,
    grid=(4, 4),
    registers=2,
)
"""MaskGIT's: heads that don't divide the width, normalised all together, adaLN by class, registers."""
COSINE = replace(
    LEARNED,
    trunk=replace(LEARNED.trunk, norm="plain", mlp="gelu-tanh", cosine=True, conditioning="adaln"),
)
"""VAR's: norms without weights, cosine attention, modulation by class."""
SHARED = replace(COSINE, trunk=replace(COSINE.trunk, conditioning="shared-adaln"))
"""The same with one modulation for all blocks."""
