"""NAR: anti-diagonals by two heads, for the right and the lower neighbour (He et al., arXiv 2503.10696)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.transformer import Trunk, View, make_norm
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import Rows
from strategies.decoding.orders import diagonal, diagonal_sizes
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.streams import Streams
from strategies.raster import RasterNetwork


class NARNetwork(RasterNetwork):
    """The raster network, whose head speaks for the token to the right, and one more block with a head for
    the token below."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.trunk = Trunk(config.trunk, config.trunk.depth + 1)
        self.trunk.tap = config.trunk.depth
        self.below_norm = make_norm(config.trunk)
        self.below_head = nn.Linear(config.trunk.width, config.codes, bias=False)

    def forward(  # type: ignore[override]
        self, x: Tensor, phases: Tensor | None, view: View, sources: "Sources", cache: Any = None
    ) -> Tensor:
        """Logits [R, m, V] of the places that look at these sources among the rows x [R, n, d]."""
        shallow, deep = self.trunk(x, phases, view, cache).chunk(2, dim=-1)
        right = self.head(self.norm(shallow)).float()
        below = self.below_head(self.below_norm(deep)).float()
        return right[:, sources.left] * sources.share + below[:, sources.upper] * (1 - sources.share)


class Sources(NamedTuple):
    """Where each place's prediction comes from: rows of its left and its upper neighbour, int64 [m], and the
    share of the left one: a half, or all or nothing at the grid's edges, float32 [m, 1]."""

    left: Tensor
    upper: Tensor
    share: Tensor


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def sources_of(grid: tuple[int, int], order: tuple[int, ...], device: torch.device) -> Sources:
    """Sources of the places of an order, as rows of the sequence class, then tokens in that order."""
    height, width = grid
    row_of = torch.empty(height * width, dtype=torch.int64)  # row of each position's token
    row_of[torch.tensor(order)] = 1 + torch.arange(height * width)
    position = torch.tensor(order)
    row, column = position // width, position % width
    left = torch.where(column > 0, row_of[(position - 1).clamp(min=0)], 0)
    upper = torch.where(row > 0, row_of[(position - width).clamp(min=0)], 0)
    share = torch.where((row > 0) == (column > 0), 0.5, (column > 0).float())
    # Where one neighbour is missing, any row will do for it, but one of the same step.
    left = torch.where((column == 0) & (row > 0), upper, left)
    upper = torch.where((row == 0) & (column > 0), left, upper)
    return Sources(left.to(device), upper.to(device), share[:, None].to(device))


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def diagonal_mask(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Boolean [1 + N, 1 + N] over class and raster tokens: each sees all diagonals up to its own."""
    height, width = grid
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    diagonals = torch.cat([torch.tensor([-1]), (rows + columns).flatten()]).to(device)
    return diagonals[None, :] <= diagonals[:, None]


@dataclass(frozen=True)
class NAR(Strategy[NARNetwork]):
    name: ClassVar[str] = "nar"
    title: ClassVar[str] = "NAR"
    paper: ClassVar[str] = "2503.10696"
    sequential_conditionals: ClassVar[bool] = False  # a diagonal's tokens are predicted from the one before

    def network(self, config: NetworkConfig) -> NARNetwork:
        return NARNetwork(config)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        return Lesson(torch.from_numpy(diagonal(grid)).expand(batch, -1), diagonal_sizes(grid))

    def taught_logits(self, network: NARNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        grid, places = network.config.grid, tokens.shape[1]
        prefix = network.class_embedding(labels).unsqueeze(1)  # [B, 1, d]
        x = torch.cat([prefix, network.token_embedding(tokens)], dim=1)  # [B, 1 + N, d]
        phases = network.phases(torch.arange(1 + places, device=tokens.device))
        view = View(mask=diagonal_mask(grid, tokens.device))
        sources = sources_of(grid, tuple(range(places)), tokens.device)
        logits = network(network.drop_embedded(x), phases, view, sources)  # [B, N, V], raster
        return logits.gather(1, lesson.order.unsqueeze(-1).expand_as(logits))

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return diagonal_sizes(grid)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        return diagonal(grid)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        # An interval counts the tokens before the step; the first step is always guided.
        starts = np.cumsum(sizes) - sizes
        return Plan(grid, order, sizes, given, count=np.repeat(starts, sizes))

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth + 1, config.places  # the last diagonal is never fed

    def decode(self, network: NARNetwork, plan: Plan, rows: Rows) -> Decoding:
        order = rows.order[0]
        phases = network.phases(torch.cat([order.new_zeros(1), 1 + order]))
        sources = sources_of(plan.grid, tuple(plan.order[0].tolist()), network.device)
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        x, start = network.class_embedding(rows.labels).unsqueeze(1), 0  # [R, 1, d]
        for at in plan.groups():
            end = start + x.shape[1]
            here = None if phases is None else phases[start:end]
            # A diagonal sees itself and all that is filled: no mask.
            asked = Sources(sources.left[at] - start, sources.upper[at] - start, sources.share[at])
            tokens = yield Ask(network(x, here, View(start=start), asked, cache), at)
            x, start = network.token_embedding(tokens), end  # [R, n, d]
