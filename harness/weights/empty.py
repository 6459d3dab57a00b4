"""A strategy's network before its weights: off it counts, shapes and predictions are read."""

from backbones.config import NetworkConfig
from backbones.empty import without_memory
from backbones.networks import Networks
from backbones.transformer import Network
from strategies.decoding.base import Strategy
from strategies.decoding.networks import network_of


def on_meta(strategy: Strategy, config: NetworkConfig) -> Network | Networks:
    """What a strategy decodes, without memory for its weights."""
    with without_memory():
        return network_of(strategy, config)
