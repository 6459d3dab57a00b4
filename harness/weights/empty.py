"""A strategy's network before its weights: off it counts, shapes and predictions are read."""

from backbones.config import NetworkConfig
from backbones.empty import without_memory
from backbones.transformer import Network
from strategies.decoding import registry
from strategies.decoding.base import Strategy


def on_meta(strategy: Strategy, config: NetworkConfig) -> Network:
    """The network that a strategy decodes, its own or its base's, without memory for its weights."""
    with without_memory():
        return registry.owner(strategy).network(config)
