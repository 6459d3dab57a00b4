"""What a strategy decodes: its own network, its base's, or several of them by role."""

from backbones.config import NetworkConfig
from backbones.networks import Networks
from backbones.transformer import Network
from strategies.decoding import registry
from strategies.decoding.base import Strategy


def network_of(strategy: Strategy, config: NetworkConfig) -> Network | Networks:
    """The network or networks of a strategy, on the current default device."""
    owner = registry.owner(strategy)
    if not strategy.roles:
        return owner.network(config)
    return Networks(**{role: owner.network(config.of(role)) for role in strategy.roles})
