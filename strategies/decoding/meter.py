"""Counts the work of a decode by hooks, so that no strategy can claim it."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from torch import nn

from backbones.networks import Networks
from backbones.transformer import Network, Trunk


def by_role(network: Network | Networks) -> Mapping[str, Network]:
    """The networks of a decode by role; one alone has the role ``network``."""
    return network.roles if isinstance(network, Networks) else {"network": network}


class Meter:
    """Forward calls of each network, in their order, and the rows that passed its trunks meanwhile."""

    def __init__(self, network: Network | Networks) -> None:
        self.calls: list[tuple[str, int]] = []
        """(role, rows through the trunks per image and branch of guidance) of every forward call."""
        self.networks = by_role(network)
        self._hooks: list[Any] = []

    @property
    def forwards(self) -> int:
        return len(self.calls)

    def __enter__(self) -> "Meter":
        for role, network in self.networks.items():
            self._hooks.append(network.register_forward_pre_hook(lambda *_, role=role: self._enter(role)))
            for module in network.modules():
                if isinstance(module, Trunk):
                    self._hooks.append(module.register_forward_pre_hook(self._pass))
        return self

    def _enter(self, role: str) -> None:
        self.calls.append((role, 0))

    def _pass(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self.calls:
            role, rows = self.calls[-1]
            self.calls[-1] = (role, rows + args[0].shape[1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
