"""RandAR: any order, by instruction tokens that say where the next token goes (Pang et al., 2412.01827)."""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.positions import rotary_table, rotate
from backbones.transformer import View
from strategies.decoding.base import Lesson, Strategy, random_orders, raster_lesson
from strategies.decoding.decode import Rows
from strategies.decoding.orders import OrderRule, ruled_orders
from strategies.decoding.plan import Plan, before_step_progress, known_first
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.schedules import randar_sizes
from strategies.decoding.streams import Streams
from strategies.raster import (
    RasterNetwork,
)


class RandARNetwork(RasterNetwork):
    """The raster network and one learned vector, turned by the phase of the cell that it asks for.

    Its sequence is class, P_0, X_0, P_1, X_1, ...: instruction P_i and image token X_i both stand at the
    cell of place i, and the output at P_i predicts X_i.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.instruction = nn.Parameter(torch.empty(1, config.trunk.width))
        self.trained: tuple[int, int] | None = None
        self.boundary = 0

    def enlarged(self, boundary: int) -> "RandARNetwork":
        """The same weights on a grid of twice the side; only the ``boundary`` highest frequencies see its
        integer positions, the others stay within the trained ones.
        """
        large = copy.copy(self)
        height, width = self.config.grid
        large.config = replace(self.config, grid=(2 * height, 2 * width))
        large.trained, large.boundary = self.config.grid, boundary
        return large

    def phases(self, rows: Tensor) -> Tensor:
        config, trunk = self.config, self.config.trunk
        table = rotary_table(
            config.grid, trunk.head_width, trunk.rotary_base, rows.device, self.trained, self.boundary
        )
        return table[rows].unsqueeze(-2)

    def instructions(self, phases: Tensor) -> Tensor:
        """Instruction tokens [.., n, d] for cells of phases [.., n, 1, D/2]: the vector turned head by head.

        Attention turns its queries and keys once more, as published.
        """
        heads = self.instruction.unflatten(-1, (-1, self.config.trunk.head_width))  # [1, H, D]
        return rotate(heads.expand(*phases.shape[:-2], -1, -1), phases).flatten(-2)


def interleave(instructions: Tensor, tokens: Tensor) -> Tensor:
    """P_i, X_i, P_i+1, X_i+1, ... [R, 2n, d] from two sequences [1 or R, n, d]."""
    return torch.stack([instructions.expand_as(tokens), tokens], dim=2).flatten(1, 2)


def layout_rows(order: Tensor) -> Tensor:
    """Phase rows of class, P_0, X_0, P_1, X_1, ... for an order [.., N]: [.., 1 + 2N]."""
    return torch.cat([torch.zeros_like(order[..., :1]), (1 + order).repeat_interleave(2, dim=-1)], dim=-1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def reading_mask(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Boolean mask over the context (class, P_0, X_0, .. X_N-2), then the instructions P_0 .. P_N-1.

    The context is causal. Place j's instruction, asked in a group that starts at place i, sees the context
    up to X_i-1 and the instructions i .. j.
    """
    places = sum(sizes)
    context = 2 * places - 1
    place = torch.arange(places, device=device)
    ends = torch.tensor(sizes, device=device).cumsum(0)
    start = torch.repeat_interleave(
        ends - torch.tensor(sizes, device=device), torch.tensor(sizes, device=device)
    )
    mask = torch.zeros(context + places, context + places, dtype=torch.bool, device=device)
    mask[:context, :context] = torch.ones(context, context, dtype=torch.bool, device=device).tril()
    mask[context:, :context] = torch.arange(context, device=device)[None, :] <= 2 * start[:, None]
    mask[context:, context:] = (place[None, :] <= place[:, None]) & (place[None, :] >= start[:, None])
    return mask


@dataclass(frozen=True)
class RandAR(Strategy[RandARNetwork]):
    name: ClassVar[str] = "randar"
    title: ClassVar[str] = "RandAR"
    paper: ClassVar[str] = "2412.01827"
    any_order: ClassVar[bool] = True

    order: OrderRule = "random"
    """In decoding; in training too where it is raster, the paper's control, and random ones otherwise."""

    def network(self, config: NetworkConfig) -> RandARNetwork:
        return RandARNetwork(config)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        if self.order == "raster":
            return raster_lesson(batch, grid)
        return Lesson(random_orders(batch, grid[0] * grid[1], generator))

    def taught_logits(self, network: RandARNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        layout = network.phases(layout_rows(lesson.order))  # [B, 1+2N, 1, D/2]
        asked = layout[:, 1::2]  # [B, N, 1, D/2]
        instructions = network.instructions(asked)  # [B, N, d]
        embedded = network.drop_embedded(network.token_embedding(tokens.gather(1, lesson.order)))
        prefix = network.class_embedding(labels).unsqueeze(1)  # [B, 1, d]
        # The last token predicts nothing and is seen by nobody, so leaving it out is exact.
        x = torch.cat([prefix, interleave(instructions, embedded)[:, :-1]], dim=1)  # [B, 2N, d]
        if lesson.sizes is None:
            return network.logits(network.trunk(x, layout[:, :-1], View(causal=True))[:, 1::2])
        x = torch.cat([x[:, :-1], instructions], dim=1)  # [B, 3N-1, d]
        phases = torch.cat([layout[:, :-2], asked], dim=1)
        view = View(mask=reading_mask(lesson.sizes, x.device))
        return network(x, phases, view, asked=tokens.shape[1])

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        # The first group is one token, so a second step is needed where there is more.
        places = grid[0] * grid[1]
        return range(min(2, places), places + 1)

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return randar_sizes(grid[0] * grid[1] - given, steps)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        # The context is causal, so the order of the known tokens matters: it is by the rule like the others'.
        return known_first(ruled_orders(self.order, grid, streams), known)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        return Plan(grid, order, sizes, given, progress=before_step_progress(sizes, given))

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        # The training layout without the last token, which is never fed.
        return config.trunk.depth, 2 * config.places

    def decode(self, network: RandARNetwork, plan: Plan, rows: Rows) -> Decoding:
        layout = network.phases(layout_rows(rows.order))  # [1 or R, 1+2N, 1, D/2]
        asked = layout[:, 1::2]
        instructions = network.instructions(asked)  # [1 or R, N, d]
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        x, start = network.class_embedding(rows.labels).unsqueeze(1), 0  # [R, 1, d]
        if rows.known is not None:
            known = self.embed_known(network, rows.known)  # [R, given, d]
            x = torch.cat([x, interleave(instructions[:, : plan.given], known)], dim=1)
        for at in plan.groups():
            fed = x.shape[1]
            x = torch.cat([x, instructions[:, at].expand(len(rows), -1, -1)], dim=1)
            phases = torch.cat([layout[:, start : start + fed], asked[:, at]], dim=1)
            logits = network(x, phases, View(start, causal=True), cache, asked=at.stop - at.start)
            tokens = yield Ask(logits, at)
            # The group's first instruction keeps its slot. The others were fed only to be read: their slots
            # are written over by the training layout, in which they see the tokens before them.
            x = interleave(instructions[:, at], network.token_embedding(tokens))[:, 1:]
            start = 2 + 2 * at.start

    def embed_known(self, network: RandARNetwork, known: Tensor) -> Tensor:
        """Vectors [R, given, d] of given tokens [R, given]."""
        return network.token_embedding(known)
