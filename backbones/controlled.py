"""The controlled trunk: what every strategy of the controlled tier is trained on."""

from dataclasses import replace

from backbones.config import Dropout, NetworkConfig, TrunkConfig, round_up

WIDTH = 128

CONTROLLED_TRUNK = TrunkConfig(
    depth=6,
    width=WIDTH,
    heads=4,
    mlp_width=round_up(int(2 * 4 * WIDTH / 3), 32),
    dropout=Dropout(residual=0.1),
)


SMALL_TRUNK = replace(
    CONTROLLED_TRUNK, depth=3, width=WIDTH // 2, heads=2, mlp_width=round_up(int(2 * 4 * WIDTH / 6), 32)
)
"""Half as deep and half as wide, with heads of the same width: the small one of two networks in a decode."""
SIZES = {"": CONTROLLED_TRUNK, "small": SMALL_TRUNK}


def controlled_network(codes: int, classes: int, grid: tuple[int, int], size: str = "") -> NetworkConfig:
    """RMSNorm, SwiGLU, 2-D rotary phases, one class prefix, no adaLN: the same for all strategies."""
    return NetworkConfig(SIZES[size], codes, classes, grid)
