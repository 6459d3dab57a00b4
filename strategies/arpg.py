"""ARPG: random-order decoding by queries that know only where they are (Li et al., arXiv 2503.10568)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from backbones.cache import KVCache
from backbones.config import NetworkConfig
from backbones.positions import rotate
from backbones.transformer import Network, Trunk, View, make_norm
from strategies.decoding.base import Lesson, Strategy, random_orders
from strategies.decoding.decode import Rows
from strategies.decoding.orders import OrderRule, ruled_orders
from strategies.decoding.plan import Plan, after_step_progress, known_before
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.schedules import arpg_sizes
from strategies.decoding.streams import Streams


class ARPGNetwork(Network):
    """Pass 1 reads the content; pass 2 lets one mask vector per target attend across to it.

    All pass-2 blocks share one key and one value per content token.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        trunk, width = config.trunk, config.trunk.width
        # Queries know their target by rotary phases alone, and share keys that no block normalises.
        trunk.require(type(self).__name__, positions="rotary", conditioning="prefix", qk_norm=False)
        # Codes, mask, classes, "no class", one reserved row.
        self.embeddings = nn.Embedding(config.codes + 1 + config.classes + 2, width)
        self.content = Trunk(trunk, trunk.depth // 2)
        self.content_norm = make_norm(trunk)
        shared_width = trunk.shared_heads * trunk.head_width
        self.key = nn.Linear(width, shared_width, bias=trunk.bias)
        self.value = nn.Linear(width, shared_width, bias=trunk.bias)
        self.queries = Trunk(trunk, trunk.depth - trunk.depth // 2, "cross")
        self.norm = make_norm(trunk)
        self.head = nn.Linear(width, config.codes, bias=False)

    def phases(self, rows: Tensor) -> Tensor:
        phases = super().phases(rows)
        assert phases is not None  # rotary, by __init__
        return phases

    def class_ids(self, labels: Tensor) -> Tensor:
        return self.config.codes + 1 + labels

    def forward(
        self,
        block: Tensor,
        block_phases: Tensor,
        query_phases: Tensor | None,
        content_view: View,
        query_view: View,
        cache: KVCache | None = None,
    ) -> Tensor | None:
        """Logits [R, n, V] for n targets, after reading a content block [R, m, d]; None without targets.

        query_phases: phases of the targets, complex64 [..., n, 1, D/2].
        """
        if cache is not None:
            content_view = content_view.placed(block, cache.slots, cache.unit)
            if (
                content_view.mask is not None
            ):  # more is read than is filled: queries see what the last row does
                query_view = View(mask=content_view.mask[..., -1:, :])
        x = self.content_norm(self.content(block, block_phases, content_view, cache))
        heads = (-1, self.config.trunk.head_width)
        keys = rotate(self.key(x).unflatten(-1, heads), block_phases).transpose(1, 2)  # [R, H, m, D]
        values = self.value(x).unflatten(-1, heads).transpose(1, 2)
        if cache is not None:
            pair = torch.cat([keys, values], dim=1)
            keys, values = cache.layers[-1].extend(content_view.at, pair, content_view.reach)
        if query_phases is None:
            return None
        mask = self.embeddings.weight[self.config.codes]
        queries = mask.expand(len(block), query_phases.shape[-3], -1)  # [R, n, d]
        queries = self.queries(queries, query_phases, query_view, shared=(keys, values))
        return self.head(self.norm(queries)).float()


def block_views(sizes: tuple[int, ...], device: torch.device) -> tuple[View, View]:
    """Masks by which one pass over N inputs equals decoding in groups: content, then queries."""
    block = torch.repeat_interleave(torch.tensor(sizes, device=device))  # step that generates place j
    content = torch.cat([torch.full_like(block[:1], -1), block[:-1]])  # condition first
    return (
        View(mask=content[None, :] <= content[:, None]),
        View(mask=content[None, :] < block[:, None]),
    )


@dataclass(frozen=True)
class ARPG(Strategy[ARPGNetwork]):
    name: ClassVar[str] = "arpg"
    title: ClassVar[str] = "ARPG"
    paper: ClassVar[str] = "2503.10568"
    any_order: ClassVar[bool] = True

    order: OrderRule = "random"
    """In decoding; it learns random ones."""
    schedule: Literal["arccos", "cosine"] = "arccos"
    """Group sizes: arccos keeps steps steady and ends with a large one, cosine starts with single tokens."""
    prefill: Literal["split", "joint"] = "split"
    """Given tokens are read after the condition, or together with it (one forward fewer)."""

    def network(self, config: NetworkConfig) -> ARPGNetwork:
        return ARPGNetwork(config)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        return Lesson(random_orders(batch, grid[0] * grid[1], generator))

    def taught_logits(self, network: ARPGNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        codes = tokens.gather(1, lesson.order)[:, :-1]
        ids = torch.cat([network.class_ids(labels)[:, None], codes], dim=1)  # [B, N]
        x = network.drop_embedded(network.embeddings(ids))
        rows = torch.cat([torch.zeros_like(lesson.order[:, :1]), 1 + lesson.order], dim=1)  # [B, 1+N]
        phases = network.phases(rows)
        views = (View(causal=True), View(causal=True))
        if lesson.sizes is not None:
            views = block_views(lesson.sizes, tokens.device)
        return network(x, phases[:, :-1], phases[:, 1:], *views)

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        return range(1, grid[0] * grid[1] + 1)

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return arpg_sizes(grid[0] * grid[1] - given, steps, self.schedule)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        return known_before(ruled_orders(self.order, grid, streams), known)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        return Plan(grid, order, sizes, given, progress=after_step_progress(sizes, given))

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth // 2 + 1, 1 + config.places

    def decode(self, network: ARPGNetwork, plan: Plan, rows: Rows) -> Decoding:
        # Phase j belongs to slot j: none for the condition, then the order's.
        phases = network.phases(torch.cat([torch.zeros_like(rows.order[:, :1]), 1 + rows.order], dim=1))
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        ids, start, view = network.class_ids(rows.labels)[:, None], 0, View()  # [R, 1]
        if rows.known is not None and self.prefill == "joint":
            ids = torch.cat([ids, rows.known], dim=1)
        elif rows.known is not None:
            network(network.embeddings(ids), phases[:, :1], None, view, view, cache)
            ids, start = rows.known, 1
        for at in plan.groups():
            end = start + ids.shape[1]
            logits = network(
                network.embeddings(ids),
                phases[:, start:end],
                phases[:, 1 + at.start : 1 + at.stop],
                View(start=start),
                view,
                cache,
            )
            start = end
            ids = yield Ask(logits, at)  # [R, n]
