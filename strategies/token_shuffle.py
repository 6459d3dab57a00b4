"""Token-Shuffle: s x s neighbouring tokens share one place of the trunk (Ma et al., arXiv 2504.17789).

Ours is class-conditional and small: the paper reports text-to-image models alone.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.positions import rotary_table
from backbones.transformer import Network, Trunk, View, make_norm
from pardec.errors import UserError
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import Rows
from strategies.decoding.orders import window_order
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.streams import Streams

MIXERS = 2
"""Residual blocks after merging and before parting; the paper says "a few"."""


class Mixer(nn.Module):
    """x + W2 silu(W1 x): mixes the tokens that share a vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.silu(self.up(x)))


class TokenShuffleNetwork(Network):
    """The raster network over windows: their tokens' vectors, narrowed and laid side by side, are one row."""

    def __init__(self, config: NetworkConfig, side: int) -> None:
        super().__init__(config)
        trunk, width, self.side = config.trunk, config.trunk.width, side
        trunk.require(type(self).__name__, positions="rotary", conditioning="prefix")
        if width % side**2:
            raise ValueError(f"width {width} can't be shared by {side} x {side} tokens")
        narrow = width // side**2
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.token_embedding = nn.Embedding(config.codes, width)
        self.narrow = nn.Linear(width, narrow, bias=False)
        self.merge = nn.Sequential(*(Mixer(width) for _ in range(MIXERS)))
        self.trunk = Trunk(trunk)
        self.part = nn.Sequential(*(Mixer(width) for _ in range(MIXERS)))
        self.widen = nn.Linear(narrow, width, bias=False)
        self.norm = make_norm(trunk)
        self.head = nn.Linear(width, config.codes, bias=False)

    def phases(self, rows: Tensor) -> Tensor:
        """Phases of class (0) and windows (1 + index): a grid of windows has positions of its own."""
        config, trunk = self.config, self.config.trunk
        windows = (config.grid[0] // self.side, config.grid[1] // self.side)
        return rotary_table(windows, trunk.head_width, trunk.rotary_base, rows.device)[rows].unsqueeze(-2)

    def fuse(self, tokens: Tensor) -> Tensor:
        """Windows of tokens [R, n * s * s] to rows [R, n, d]."""
        narrow = self.narrow(self.token_embedding(tokens))  # [R, n * s * s, d / s^2]
        return self.merge(narrow.unflatten(1, (-1, self.side**2)).flatten(2))

    def forward(
        self, labels: Tensor | None, tokens: Tensor | None, phases: Tensor, view: View, cache: Any = None
    ) -> Tensor:
        """Logits [R, n * s * s, V] of the windows that follow a class (labels [R]), windows of tokens
        [R, m * s * s], or both."""
        rows = [] if labels is None else [self.class_embedding(labels).unsqueeze(1)]  # [R, 1, d]
        rows += [] if tokens is None else [self.fuse(tokens)]  # [R, m, d]
        x = self.drop_embedded(torch.cat(rows, dim=1))  # [R, n, d]
        x = self.part(self.trunk(x, phases, view, cache))
        x = self.widen(x.unflatten(-1, (self.side**2, -1))).flatten(1, 2)  # [R, n * s * s, d]
        return self.head(self.norm(x)).float()


@dataclass(frozen=True)
class TokenShuffle(Strategy[TokenShuffleNetwork]):
    name: ClassVar[str] = "token-shuffle"
    title: ClassVar[str] = "Token-Shuffle"
    paper: ClassVar[str] = "2504.17789"
    sequential_conditionals: ClassVar[bool] = False  # a window's tokens are predicted from those before it

    side: int = 2
    """Tokens of a window along each axis."""

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UserError(f"option 'side' of strategy 'token-shuffle' is {self.side}; at least 1 is needed")

    def network(self, config: NetworkConfig) -> TokenShuffleNetwork:
        return TokenShuffleNetwork(config, self.side)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        order = torch.from_numpy(window_order(grid, self.side))
        return Lesson(order.expand(batch, -1), self.sizes(grid, 0))

    def taught_logits(
        self, network: TokenShuffleNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson
    ) -> Tensor:
        known = tokens.gather(1, lesson.order)[:, : -(self.side**2)]
        phases = network.phases(torch.arange(tokens.shape[1] // self.side**2, device=tokens.device))
        return network(labels, known, phases, View(causal=True))

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        if grid[0] % self.side or grid[1] % self.side:
            windows = f"windows of {self.side}x{self.side}"
            raise UserError(f"strategy '{self.name}': a grid of {grid[0]}x{grid[1]} has no {windows}")
        return (self.side**2,) * (grid[0] * grid[1] // self.side**2)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        return window_order(grid, self.side)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        starts = np.repeat(np.cumsum(sizes) - sizes, sizes)  # an interval counts the tokens before a step
        return Plan(grid, order, sizes, given, count=starts)

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth, config.places // self.side**2

    def decode(self, network: TokenShuffleNetwork, plan: Plan, rows: Rows) -> Decoding:
        layers, slots = self.cache_shape(network.config)
        phases = network.phases(torch.arange(slots, device=network.device))
        cache = network.cache(len(rows), layers, slots)
        labels: Tensor | None = rows.labels
        tokens: Tensor | None = None
        for slot, at in enumerate(plan.groups()):
            logits = network(labels, tokens, phases[slot : slot + 1], View(start=slot), cache)
            labels, tokens = None, (yield Ask(logits, at))  # [R, s * s]
