"""Several networks of one decode, by the role that each plays (drafter and refiner, coarse and fine)."""

from collections.abc import Callable
from typing import Self

import torch
from torch import nn

from backbones.cache import KVCache
from backbones.config import NetworkConfig
from backbones.transformer import Network


class Networks(nn.Module):
    """Networks by role; the last one's configuration speaks for the image: its grid, codes and classes."""

    def __init__(self, **roles: Network) -> None:
        super().__init__()
        if not roles:
            raise ValueError("no network at all")
        self.networks = nn.ModuleDict(roles)

    def __getitem__(self, role: str) -> Network:
        network = self.networks[role]
        assert isinstance(network, Network)
        return network

    @property
    def roles(self) -> dict[str, Network]:
        return {role: self[role] for role in self.networks}

    @property
    def config(self) -> NetworkConfig:
        return list(self.roles.values())[-1].config

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def in_precision(self, dtype: torch.dtype) -> Self:
        """As ``Network.in_precision``, each."""
        for network in self.roles.values():
            network.in_precision(dtype)
        return self

    def keep_caches(self, unit: Callable[[KVCache], int] | None = None) -> None:
        for network in self.roles.values():
            network.keep_caches(unit)
