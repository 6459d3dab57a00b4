"""Raster: one token a step, row by row, by a plain causal decoder (LlamaGen, Sun et al., 2406.06525)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.transformer import Network, Trunk, View, make_norm
from strategies.decoding.base import Lesson, Strategy, raster_lesson
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding


class RasterNetwork(Network):
    """Class vector, then tokens; the output at each place predicts the next token."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        config.trunk.require(type(self).__name__, positions="rotary", conditioning="prefix")
        width = config.trunk.width
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.token_embedding = nn.Embedding(config.codes, width)
        self.trunk = Trunk(config.trunk)
        self.norm = make_norm(config.trunk)
        self.head = nn.Linear(width, config.codes, bias=False)

    def forward(
        self, x: Tensor, phases: Tensor | None, view: View, cache: Any = None, asked: int | None = None
    ) -> Tensor:
        """Logits [R, n, V] of the embedded rows x [R, n, d], or of the last ``asked`` of them."""
        return self.logits(self.trunk(x, phases, view, cache, asked=asked))

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x)).float()

    def feed(self, labels: Tensor, places: int) -> "RasterFeed":
        return RasterFeed(self, labels, places)


class RasterFeed:
    """One decode in raster order, each row at its own pace: slot n of the cache is what predicts place n."""

    def __init__(self, network: RasterNetwork, labels: Tensor, places: int) -> None:
        """labels [R]; places: of the cache, those past the end included."""
        self.network, self.labels, self.last = network, labels, network.config.places - 1
        self.cache = network.cache(len(labels), network.config.trunk.depth, places)
        self.phases = network.phases(torch.arange(self.last + 1, device=network.device))

    def first(self) -> Tensor:
        x = self.network.class_embedding(self.labels).unsqueeze(1)  # [R, 1, d]
        return self.network(x, None if self.phases is None else self.phases[:1], View(start=0), self.cache)

    def behind(self, tokens: Tensor, start: Tensor, reach: int) -> Tensor:
        at = (start[:, None] + torch.arange(tokens.shape[1], device=start.device)).clamp(max=self.last)
        x = self.network.token_embedding(tokens)  # [R, L, d]
        phases = None if self.phases is None else self.phases[at]
        return self.network(x, phases, View(start=start, reach=reach), self.cache)


@dataclass(frozen=True)
class Raster(Strategy[RasterNetwork]):
    name: ClassVar[str] = "raster"
    title: ClassVar[str] = "Raster"
    paper: ClassVar[str] = "2406.06525"
    lossless: ClassVar[bool] = True

    def network(self, config: NetworkConfig) -> RasterNetwork:
        return RasterNetwork(config)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        return raster_lesson(batch, grid)

    def taught_logits(self, network: RasterNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        prefix = network.class_embedding(labels).unsqueeze(1)  # [B, 1, d]
        x = torch.cat([prefix, network.token_embedding(tokens[:, :-1])], dim=1)  # [B, N, d]
        phases = network.phases(torch.arange(tokens.shape[1], device=tokens.device))
        return network(network.drop_embedded(x), phases, View(causal=True))

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth, config.places

    def decode(self, network: RasterNetwork, plan: Plan, rows: Rows) -> Decoding:
        phases = network.phases(torch.arange(plan.places, device=network.device))
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        x = network.class_embedding(rows.labels).unsqueeze(1)  # [R, 1, d]
        for slot, at in enumerate(plan.groups()):
            here = None if phases is None else phases[slot : slot + 1]
            tokens = yield Ask(network(x, here, View(start=slot), cache), at)
            x = network.token_embedding(tokens)  # [R, 1, d]
