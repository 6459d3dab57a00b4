"""A strategy's network before its weights: off it counts, shapes and predictions are read."""

from backbones.config import NetworkConfig
from backbones.empty import without_memory
from backbones.transformer import Network
from strategies.decoding.base import Strategy


def on_meta(strategy: Strategy, config: NetworkConfig) -> Network:
    """The network without memory for its weights."""
    with without_memory():
        return strategy.network(config)
