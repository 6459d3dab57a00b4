"""The controlled trunk: what every strategy of the controlled tier is trained on."""

from backbones.config import Dropout, NetworkConfig, TrunkConfig, round_up

WIDTH = 128

CONTROLLED_TRUNK = TrunkConfig(
    depth=6,
    width=WIDTH,
    heads=4,
    mlp_width=round_up(int(2 * 4 * WIDTH / 3), 32),
    dropout=Dropout(residual=0.1),
)


def controlled_network(codes: int, classes: int, grid: tuple[int, int]) -> NetworkConfig:
    """RMSNorm, SwiGLU, 2-D rotary phases, one class prefix, no adaLN: the same for all strategies."""
    return NetworkConfig(CONTROLLED_TRUNK, codes, classes, grid)
