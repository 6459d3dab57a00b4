"""RAR: trained on random orders annealed to raster, decoded in raster order (Yu et al., arXiv 2411.00776)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.transformer import Network, Trunk, View, make_norm, modulate, of_last
from strategies.decoding.base import Lesson, Strategy, random_orders
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding

PREFIX_ROWS = 2
SPARE_ROWS = 1024
SPARE_STEPS = 100
MODULATED_ROWS = 64
"""Rows of adaLN parts made at once, over images and steps: many, to read those weights seldom, few, to keep
the parts small."""


class RARNetwork(Network):
    """A causal decoder whose inputs also say which cell they must predict (target-aware table).

    As published: learned positions, a learned start vector before the class, adaLN conditioned on the class
    and the step. On a rotary trunk with a class prefix, the target-aware table is all that RAR adds.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        trunk, width, places = config.trunk, config.trunk.width, config.places
        self.learned = trunk.positions == "learned"
        self.adaln = trunk.conditioning == "adaln"
        if self.adaln:
            trunk.require(type(self).__name__, positions="learned")
        # Codes, a mask symbol that is never fed, classes, "no class".
        self.embeddings = nn.Embedding(config.codes + 1 + config.classes + config.null_class, width)
        table = places + SPARE_ROWS if self.learned else places
        self.target_positions = nn.Parameter(torch.empty(1, table, width))
        if self.learned:
            self.positions = nn.Parameter(torch.empty(1, table, width))
        if self.adaln:
            self.start = nn.Parameter(torch.empty(1, 1, width))
            self.step_embeddings = nn.Parameter(torch.empty(1, places + SPARE_STEPS, width))
            self.final_modulation = nn.Linear(width, 2 * width)
            self.norm: nn.Module = nn.LayerNorm(width, eps=trunk.norm_eps, elementwise_affine=False)
        else:
            self.norm = make_norm(trunk)
        self.trunk = Trunk(trunk)
        self.head = nn.Linear(width, config.codes, bias=trunk.bias)

    def class_ids(self, labels: Tensor) -> Tensor:
        return self.config.codes + 1 + labels

    def positional(self, order: Tensor) -> Tensor:
        """What positions add to the inputs that predict order[0], order[1], ...: [..., N, d].

        Input 0 is the class, input j the code at order[j-1]; each also carries its target order[j].
        """
        if not self.learned:
            return self.target_positions[0][order]
        class_row = torch.ones_like(order[..., :1])
        own = torch.cat([class_row, PREFIX_ROWS + order[..., :-1]], dim=-1)
        return self.positions[0][own] + self.target_positions[0][PREFIX_ROWS + order]

    def input_phases(self, order: Tensor) -> Tensor | None:
        """Rotary phases of the same inputs: none for the class, then each code's own."""
        return self.phases(torch.cat([torch.zeros_like(order[..., :1]), 1 + order[..., :-1]], dim=-1))

    def with_start(self, x: Tensor) -> Tensor:
        """Put the start vector before the class vector, [R, 1 + n, d], where the network has one."""
        if not self.adaln:
            return x
        start = self.start.expand(len(x), -1, -1)
        return torch.cat([start + self.positions[:, :1] if self.learned else start, x], dim=1)

    def modulations(self, labels: Tensor, at: slice | Tensor) -> list[Tensor]:
        """What adaLN does at the sequence indices ``at``, a slice or [R, n], by class and index alone.

        [R, n, 6d] for each block and [R, n, 2d] for the final norm.
        """
        steps = self.step_embeddings[:, at] if isinstance(at, slice) else self.step_embeddings[0][at]
        condition = F.silu(self.embeddings(self.class_ids(labels)).unsqueeze(1) + steps)  # [R, n, d]
        return [*self.trunk.modulations(condition), self.final_modulation(condition)]

    def forward(
        self,
        x: Tensor,
        phases: Tensor | None,
        view: View,
        cache: Any,
        modulations: "Modulations",
        asked: int | None = None,
    ) -> Tensor:
        """Logits [R, n, V] of embedded rows x [R, n, d], or of the last ``asked`` of them."""
        if not self.adaln:
            return self.head(self.norm(self.trunk(x, phases, view, cache, asked=asked))).float()
        *of_blocks, final = modulations.of(self, view.start, x.shape[1])
        # The reverse of the blocks' order: scale, then shift.
        scale, shift = of_last(final, asked).chunk(2, dim=-1)
        x = self.norm(self.trunk(x, phases, view, cache, modulations=of_blocks, asked=asked))
        return self.head(modulate(x, shift, scale)).float()

    def feed(self, labels: Tensor, places: int) -> "RARFeed":
        return RARFeed(self, labels, places)


class Modulations:
    """adaLN's parts of labels [R], made for ``ahead`` sequence indices by the pass that first needs them."""

    def __init__(self, labels: Tensor, ahead: int) -> None:
        self.labels, self.ahead = labels, ahead
        self.first = self.past = 0
        self.made: list[Tensor] = []

    def of(self, network: RARNetwork, start: int | Tensor, rows: int) -> list[Tensor]:
        """Those of so many sequence indices from ``start`` on; [R]: where each row starts by itself."""
        if isinstance(start, int):
            return self.between(network, start, start + rows)
        at = start[:, None] + torch.arange(rows, device=start.device)
        return network.modulations(self.labels, at.clamp(max=network.config.places))  # no row beyond is read

    def between(self, network: RARNetwork, start: int, end: int) -> list[Tensor]:
        """Those of the sequence indices from ``start`` to ``end``, each [R, end - start, ...]."""
        if end > self.past:
            last = network.config.places + 1
            self.first, self.past = start, max(end, min(start + self.ahead, last))
            self.made.clear()  # before as many come into being
            self.made = network.modulations(self.labels, slice(self.first, self.past))
        return [made[:, start - self.first : end - self.first] for made in self.made]


class RARFeed:
    """One decode in raster order, each row at its own pace: place n is predicted from slot n of the cache,
    behind the start vector's where there is one."""

    def __init__(self, network: RARNetwork, labels: Tensor, places: int) -> None:
        """labels [R]; places: of the cache, those past the end included."""
        order = torch.arange(network.config.places, device=network.device)
        self.network, self.labels, self.last = network, labels, len(order) - 1
        self.positional, self.phases = network.positional(order), network.input_phases(order)  # [N, d]
        self.modulations = Modulations(labels, 1)
        self.before = int(network.adaln)
        self.cache = network.cache(len(labels), network.config.trunk.depth, self.before + places)

    def first(self) -> Tensor:
        ids = self.network.class_ids(self.labels)[:, None]  # [R, 1]
        x = self.network.with_start(self.network.embeddings(ids) + self.positional[:1])
        phases = None if self.phases is None else self.phases[:1]
        view = View(start=0, causal=True)
        return self.network(x, phases, view, self.cache, self.modulations, asked=1)

    def behind(self, tokens: Tensor, start: Tensor, reach: int) -> Tensor:
        at = (start[:, None] + torch.arange(tokens.shape[1], device=start.device)).clamp(max=self.last)
        x = self.network.embeddings(tokens) + self.positional[at]  # [R, L, d]
        phases = None if self.phases is None else self.phases[at]
        view = View(start=self.before + start, reach=self.before + reach)
        return self.network(x, phases, view, self.cache, self.modulations)


@dataclass(frozen=True)
class RAR(Strategy[RARNetwork]):
    name: ClassVar[str] = "rar"
    title: ClassVar[str] = "RAR"
    paper: ClassVar[str] = "2411.00776"
    lossless: ClassVar[bool] = True
    gradient_exceptions: ClassVar[Mapping[str, str]] = {
        "k_norm.bias": "a constant added to all keys cancels in the softmax",
    }

    anneal_start: float = 0.5
    """Share of training after which random orders begin to give way to raster."""
    anneal_end: float = 0.75

    def network(self, config: NetworkConfig) -> RARNetwork:
        return RARNetwork(config)

    def random_share(self, progress: float) -> float:
        """Probability that a training row has a random order: 1, falling linearly to 0."""
        if progress < self.anneal_start:
            return 1.0
        if progress >= self.anneal_end:
            return 0.0
        return (self.anneal_end - progress) / (self.anneal_end - self.anneal_start)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        places = grid[0] * grid[1]
        random = torch.rand(batch, 1, generator=generator) < self.random_share(progress)
        return Lesson(torch.where(random, random_orders(batch, places, generator), torch.arange(places)))

    def taught_logits(self, network: RARNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        codes = tokens.gather(1, lesson.order)[:, :-1]
        ids = torch.cat([network.class_ids(labels)[:, None], codes], dim=1)  # [B, N]
        x = network.drop_embedded(network.embeddings(ids) + network.positional(lesson.order))
        phases, places = network.input_phases(lesson.order), ids.shape[1]
        modulations = Modulations(labels, places + 1)
        logits = network(network.with_start(x), phases, View(causal=True), None, modulations)
        return logits[:, -places:]  # without the start vector's output

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth, config.places + (config.trunk.conditioning == "adaln")

    def decode(self, network: RARNetwork, plan: Plan, rows: Rows) -> Decoding:
        positional = network.positional(rows.order)  # [1, N, d]
        phases = network.input_phases(rows.order)
        modulations = Modulations(rows.labels, max(1, MODULATED_ROWS // len(rows)))
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        ids, start = network.class_ids(rows.labels)[:, None], 0  # [R, 1]
        for place, at in enumerate(plan.groups()):
            x = network.embeddings(ids) + positional[:, at]  # [R, 1, d]
            if place == 0:
                x = network.with_start(x)
            end = start + x.shape[1]
            here = None if phases is None else phases[:, at]
            logits = network(x, here, View(start=start, causal=True), cache, modulations, asked=1)
            ids = yield Ask(logits, at)
            start = end
