"""LPD: query tokens ask for any positions, grouped by locality (Zhang et al., arXiv 2507.01957)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.transformer import Network, Trunk, View, make_norm
from pardec.errors import UserError
from strategies.decoding.base import Lesson, Strategy, random_orders
from strategies.decoding.decode import Rows
from strategies.decoding.orders import LocalityDraws, OrderRule, locality_orders, ruled_orders
from strategies.decoding.plan import Plan, known_before
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.schedules import lpd_published_steps, lpd_sizes
from strategies.decoding.streams import Streams


class LPDNetwork(Network):
    """A decoder fed known content and, beside it, one shared query vector per position asked for.

    As published: one learned position table for content and queries, and a norm over every input vector.
    On a rotary trunk the phases do both.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        trunk, width = config.trunk, config.trunk.width
        trunk.require(type(self).__name__, conditioning="prefix")
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.token_embedding = nn.Embedding(config.codes, width)
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.learned = trunk.positions == "learned"
        if self.learned:
            self.positions = nn.Parameter(torch.empty(1, 1 + config.places, width))
            self.input_norm = make_norm(trunk)
        self.trunk = Trunk(trunk)
        self.norm = make_norm(trunk)
        self.head = nn.Linear(width, config.codes, bias=False)

    def place(self, content: Tensor, rows: Tensor) -> Tensor:
        """Content vectors [R, n, d] at table rows [.., n] (0: class, 1 + p: position p)."""
        return self.input_norm(content + self.positions[0][rows]) if self.learned else content

    def forward(self, x: Tensor, phases: Tensor | None, view: View, asked: int, cache: Any = None) -> Tensor:
        """Logits [R, asked, V] of the last ``asked`` rows of x [R, n, d]."""
        return self.head(self.norm(self.trunk(x, phases, view, cache, asked=asked))).float()


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def teaching_mask(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    """Boolean mask over content (class, all groups but the last), then queries (all groups).

    Content sees blocks up to its own; a query sees content of earlier groups and its own group's queries.
    """
    group = torch.repeat_interleave(torch.tensor(sizes, device=device))  # group of each place
    content = torch.cat([torch.full_like(group[:1], -1), group[: sum(sizes[:-1])]])
    to_content = torch.cat([content[None, :] <= content[:, None], content[None, :] < group[:, None]])
    to_queries = torch.cat(
        [
            torch.zeros(len(content), len(group), dtype=torch.bool, device=device),
            group[None, :] == group[:, None],
        ]
    )
    return torch.cat([to_content, to_queries], dim=1)


@dataclass(frozen=True)
class LPD(Strategy[LPDNetwork]):
    name: ClassVar[str] = "lpd"
    title: ClassVar[str] = "LPD"
    paper: ClassVar[str] = "2507.01957"
    any_order: ClassVar[bool] = True
    gradient_exceptions: ClassVar[Mapping[str, str]] = {
        "qkv.bias": "its key third shifts all scores of a query equally",
    }

    order: Literal["locality", OrderRule] = "locality"
    """In decoding; it learns random ones."""
    proximity: float = 1.0
    """Score from which a free position counts as near what is known."""
    repulsion: float = 2.0
    """Chebyshev distance that members of one group keep."""

    def __post_init__(self) -> None:
        if math.isnan(self.proximity):
            raise UserError("option 'proximity' of strategy 'lpd' is not a number")
        if not self.repulsion >= 0:
            raise UserError(f"option 'repulsion' of strategy 'lpd' is {self.repulsion}; at least 0 is needed")

    def network(self, config: NetworkConfig) -> LPDNetwork:
        return LPDNetwork(config)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        places = grid[0] * grid[1]
        # Published: every list of the table. Elsewhere: one by one, then ever fewer steps.
        choices = lpd_published_steps(places) or tuple(
            sorted({max(2, places // share) for share in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)})
        )
        steps = choices[int(torch.randint(len(choices), (), generator=generator))]
        return Lesson(random_orders(batch, places, generator), lpd_sizes(places, steps))

    def taught_logits(self, network: LPDNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        order, sizes, batch = lesson.order, lesson.sizes, len(tokens)
        if sizes is None:
            raise ValueError("an LPD lesson needs group sizes")
        kept = order[:, : sum(sizes[:-1])]
        prefix = network.class_embedding(labels).unsqueeze(1)  # [B, 1, d]
        content = torch.cat([prefix, network.token_embedding(tokens.gather(1, kept))], dim=1)
        content = network.drop_embedded(content)
        queries = network.query.expand(batch, order.shape[1], -1)  # [B, N, d]
        rows = torch.cat([torch.zeros_like(order[:, :1]), 1 + kept, 1 + order], dim=1)
        x = network.place(torch.cat([content, queries], dim=1), rows)
        view = View(mask=teaching_mask(sizes, tokens.device))
        return network(x, network.phases(rows), view, order.shape[1])

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        # The first group is one token where none is given, so a second step is needed where there is more.
        places = grid[0] * grid[1]
        return range(1 if given else min(2, places), places + 1)

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return lpd_sizes(grid[0] * grid[1] - given, steps, first_is_one=given == 0)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        if self.order != "locality":
            return known_before(ruled_orders(self.order, grid, streams), known)
        if grid[0] != grid[1]:
            raise UserError(f"LPD's locality order is defined on square grids, not {grid[0]}x{grid[1]}")
        draws = LocalityDraws.from_streams(streams, grid[0] * grid[1], len(sizes))
        return locality_orders(grid[0], sizes, self.proximity, self.repulsion, draws, known)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        # Guidance grows place by place, so it differs inside a group.
        unknown = grid[0] * grid[1] - given
        progress = np.concatenate([np.zeros(given), np.arange(unknown) / max(unknown, 1)])
        return Plan(grid, order, sizes, given, progress=progress)

    def decode(self, network: LPDNetwork, plan: Plan, rows: Rows) -> Decoding:
        table = torch.cat([torch.zeros_like(rows.order[:, :1]), 1 + rows.order], dim=1)  # [1 or R, 1+N]
        phases = network.phases(table)
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        content, start = network.class_embedding(rows.labels).unsqueeze(1), 0  # [R, 1, d]
        if rows.known is not None:
            self.remember(network, content, table[:, :1], phases, cache)
            content, start = network.token_embedding(rows.known), 1
        for at in plan.groups():
            fed, asked = content.shape[1], at.stop - at.start
            end = start + fed + asked
            queries = network.query.expand(len(rows), asked, -1)  # [R, n, d]
            x = network.place(torch.cat([content, queries], dim=1), table[:, start:end])
            # Content must not see the queries behind it; their slots are written over by the next step.
            view = View(start, runs=((fed, start + fed), (asked, end)))
            here = None if phases is None else phases[:, start:end]
            tokens = yield Ask(network(x, here, view, asked, cache), at)
            content, start = network.token_embedding(tokens), start + fed

    def remember(
        self, network: LPDNetwork, content: Tensor, table: Tensor, phases: Tensor | None, cache: Any
    ) -> None:
        """Write the class alone as the first block, as in training, before a block of known tokens."""
        here = None if phases is None else phases[:, :1]
        network(network.place(content, table), here, View(), 1, cache)
