"""PAR: distant tokens, one of each region, are generated together (Wang et al., arXiv 2412.15119)."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.transformer import View
from pardec.errors import UserError
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import Rows
from strategies.decoding.orders import region_order
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.schedules import par_sizes
from strategies.decoding.streams import Streams
from strategies.raster import RasterNetwork


class PARNetwork(RasterNetwork):
    """The raster network and n - 1 learned transition tokens between its two phases."""

    def __init__(self, config: NetworkConfig, regions: int) -> None:
        super().__init__(config)
        self.transition = nn.Embedding(regions - 1, config.trunk.width)

    def table_rows(self, order: Tensor, regions: int) -> Tensor:
        """Phase row of every input position, [N + n - 1]: class and transition tokens have none."""
        none = order.new_zeros(1)
        rows = 1 + order
        return torch.cat([none, rows[:regions], none.expand(regions - 1), rows[regions:-1]])


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def group_mask(places: int, regions: int, device: torch.device) -> Tensor:
    """Boolean [N, N]: causal, and each block of n positions from n on sees itself to its end."""
    position = torch.arange(places, device=device)
    reach = torch.where(position < regions, position, (position // regions + 1) * regions - 1)
    return position[None, :] <= reach[:, None]


@dataclass(frozen=True)
class PAR(Strategy[PARNetwork]):
    name: ClassVar[str] = "par"
    title: ClassVar[str] = "PAR"
    paper: ClassVar[str] = "2412.15119"
    sequential_conditionals: ClassVar[bool] = False  # a place is predicted from the group before its own

    regions: int = 4
    """Tokens per parallel step, one of each region; a perfect square."""

    def __post_init__(self) -> None:
        if self.regions < 4 or math.isqrt(self.regions) ** 2 != self.regions:
            raise UserError(
                f"option 'regions' of strategy 'par' is {self.regions}; a perfect square from 4 on is needed"
            )

    def network(self, config: NetworkConfig) -> PARNetwork:
        return PARNetwork(config, self.regions)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        return Lesson(torch.from_numpy(region_order(grid, self.regions)).expand(batch, -1))

    def taught_logits(self, network: PARNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        n, places = self.regions, tokens.shape[1]
        embedded = network.token_embedding(tokens.gather(1, lesson.order))  # [B, N, d]
        prefix = network.class_embedding(labels).unsqueeze(1)  # [B, 1, d]
        transition = network.transition.weight.expand(len(labels), -1, -1)
        x = torch.cat([prefix, embedded[:, :n], transition, embedded[:, n:-1]], dim=1)
        # What predicts nothing is also seen by nobody, so cutting to N positions is exact.
        x = network.drop_embedded(x)[:, :places]  # [B, N, d]
        phases = network.phases(network.table_rows(lesson.order[0], n)[:places])
        return network(x, phases, View(mask=group_mask(places, n, x.device)))

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        try:
            region_order(grid, self.regions)
        except ValueError as error:
            raise UserError(f"strategy '{self.name}': {error}") from error
        return par_sizes(grid[0] * grid[1], self.regions)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        return region_order(grid, self.regions)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        # The interval's counter counts tokens and starts anew, guided, in the parallel phase.
        place = np.arange(grid[0] * grid[1])
        n = self.regions
        count = np.where(place < n, np.maximum(place - 1, 0), place // n * n - n)
        return Plan(grid, order, sizes, given, count=count)

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth, config.places

    def decode(self, network: PARNetwork, plan: Plan, rows: Rows) -> Decoding:
        n = self.regions
        phases = network.phases(network.table_rows(rows.order[0], n))
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        transition = network.transition.weight.expand(len(rows), -1, -1)  # [R, n-1, d]
        x, start = network.class_embedding(rows.labels).unsqueeze(1), 0  # [R, 1, d]
        for at in plan.groups():
            end = start + x.shape[1]
            here = None if phases is None else phases[start:end]
            tokens = yield Ask(network(x, here, View(start=start), cache), at)
            x, start = network.token_embedding(tokens), end
            if at.stop == n:
                x = torch.cat([x, transition], dim=1)  # [R, n, d]
