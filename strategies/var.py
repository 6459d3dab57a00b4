"""VAR: map after map, small to large, each from the sum of smaller ones (Tian et al., arXiv 2404.02905)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.tokenizers.multiscale import MultiScaleQuantiser, lend, sides_for
from backbones.tokenizers.vq import code_vectors
from backbones.transformer import Network, Trunk, View, make_norm, modulate
from pardec.errors import UserError
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding
from strategies.decoding.sampling import Sampler
from strategies.decoding.streams import Streams

PARTS = [4, 2, 0, 5, 3, 1]
"""The published order is gates, scales, shifts, two of each; a block's is shift, scale, gate, twice."""


class Sums:
    """The map of features that the drawn scales add up to, and what it is at the side of every next scale."""

    def __init__(self, fed: list[Tensor] | None = None) -> None:
        self.fed = fed or []
        """Features of scales 1, 2, ..., [B, s^2, c] each."""
        self.total: Tensor | None = None
        self.drawn: tuple[int, Tensor] | None = None

    def drew(self, scale: int, tokens: Tensor) -> None:
        """Tokens [B, s^2] of a scale; they are added by the pass that reads them."""
        self.drawn = scale, tokens

    def up_to(self, scale: int, quantiser: MultiScaleQuantiser) -> list[Tensor]:
        """Features of scales 1 to ``scale``."""
        if self.drawn is not None:
            last, tokens = self.drawn
            side = quantiser.sides[last]
            vectors = code_vectors(tokens.unflatten(1, (side, side)), quantiser.codebook.weight)
            part = quantiser.enlarged(vectors, last)
            self.total = part if self.total is None else self.total + part
            self.fed.append(quantiser.shrunk(self.total, last + 1).flatten(2).transpose(1, 2))
            self.drawn = None
        return self.fed[:scale]


class Condition:
    """The class of every row, and adaLN's parts of it, made by the pass that first needs them."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels
        self.parts: list[Tensor] | None = None


class VARNetwork(Network):
    """On a trunk with adaLN the published network. On the shared trunk a class vector in the first place,
    level embeddings, and phases of where a cell's centre lies on the largest map."""

    reads_tokenizer: ClassVar[bool] = True

    def __init__(self, config: NetworkConfig, sides: tuple[int, ...], code_width: int) -> None:
        super().__init__(config)
        trunk, width, self.sides = config.trunk, config.trunk.width, sides
        self.quantiser = MultiScaleQuantiser(config.codes, code_width, sides)
        lend(self.quantiser, None)
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.features = nn.Linear(code_width, width)
        self.levels = nn.Embedding(len(sides), width)
        if trunk.positions == "learned":
            self.start = nn.Parameter(torch.zeros(1, 1, width))
            self.positions = nn.Parameter(torch.zeros(1, sum(side**2 for side in sides), width))
        self.trunk = Trunk(trunk)
        if trunk.conditioning == "shared-adaln":
            self.modulation = nn.Linear(width, 6 * width)
            self.offsets = nn.ParameterList(torch.zeros(1, 1, 6, width) for _ in range(trunk.depth))
        if trunk.conditioning != "prefix":
            self.final_modulation = nn.Linear(width, 2 * width)
        self.norm = make_norm(trunk)
        self.head = nn.Linear(width, config.codes, bias=trunk.bias)

    @property
    def single_precision(self) -> tuple[str, ...]:
        """Of the published network what follows its blocks."""
        published = self.config.trunk.conditioning != "prefix"
        return ("final_modulation", "norm", "head") if published else ()

    def borrow(self, tokenizer: nn.Module | None) -> None:
        source = None if tokenizer is None else getattr(tokenizer, "quantiser", None)
        if tokenizer is not None and not isinstance(source, MultiScaleQuantiser):
            raise UserError(f"VAR decodes by a multi-scale quantiser, which {type(tokenizer).__name__} lacks")
        if source is not None and source.sides != self.sides:
            raise ValueError(f"maps of sides {list(source.sides)}, expected {list(self.sides)}")
        lend(self.quantiser, source)

    def forward(
        self, condition: Condition, sums: Sums, scales: range, view: View, cache: Any = None, last: int = 0
    ) -> Tensor:
        """Logits [R, n, V] of all places of ``scales``, or of the last ``last`` of them."""
        labels = condition.labels.masked_fill(condition.labels < 0, self.config.classes)  # no class
        vectors = self.class_embedding(labels).unsqueeze(1)  # [R, 1, d]
        x = self.embedded(vectors, sums, scales)
        phases = self.phases(rows_of(self.sides, x.device)[self.places(scales)])
        asked = last or None
        if self.config.trunk.conditioning == "prefix":
            return self.head(self.norm(self.trunk(x, phases, view, cache, asked=asked))).float()
        if condition.parts is None:
            condition.parts = self.parts(F.silu(vectors))
        *of_blocks, final = condition.parts
        x = self.trunk(x, phases, view, cache, modulations=of_blocks, asked=asked)
        scale, shift = final.chunk(2, dim=-1)
        return self.head(modulate(self.norm(x.float()), shift, scale)).float()

    def places(self, scales: range) -> slice:
        ends = np.cumsum([0, *(side**2 for side in self.sides)])
        return slice(int(ends[scales.start]), int(ends[scales.stop]))

    def embedded(self, vectors: Tensor, sums: Sums, scales: range) -> Tensor:
        """Rows x [R, n, d] of the places of ``scales``."""
        at, parts = self.places(scales), []
        fed = sums.up_to(scales.stop - 1, self.quantiser)[max(scales.start - 1, 0) :]
        if scales.start == 0:
            parts.append(vectors + self.start if self.config.trunk.positions == "learned" else vectors)
        if fed:
            x = self.features(torch.cat(fed, dim=1).to(self.dtype))  # [B, n, d]
            parts.append(x.repeat(len(vectors) // len(x), 1, 1))
        level = torch.cat([self.levels.weight[scale].expand(self.sides[scale] ** 2, -1) for scale in scales])
        x = torch.cat(parts, dim=1) + level
        return x + self.positions[:, at] if self.config.trunk.positions == "learned" else x

    def parts(self, condition: Tensor) -> list[Tensor]:
        """adaLN's of every block, [R, 1, 6d], and of the output, from conditions [R, 1, d]."""
        if self.config.trunk.conditioning == "adaln":
            made = [one.unflatten(-1, (6, -1)) for one in self.trunk.modulations(condition)]
        else:
            shared = self.modulation(condition).unflatten(-1, (6, -1))
            made = [shared + offset for offset in self.offsets]
        return [*(one[:, :, PARTS].flatten(2) for one in made), self.final_modulation(condition.float())]


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def rows_of(sides: tuple[int, ...], device: torch.device) -> Tensor:
    """Row of the phase table for every place: of the position on the largest map where its centre lies."""
    parts = []
    for side in sides:
        line = ((torch.arange(side) + 0.5) * sides[-1] / side).long()
        parts.append(1 + (line[:, None] * sides[-1] + line).flatten())
    return torch.cat(parts).to(device)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept beyond the decode that first asks for it
def scale_mask(sides: tuple[int, ...], device: torch.device) -> Tensor:
    """Boolean [L, L]: each place sees its own scale and all smaller ones."""
    scale = torch.arange(len(sides)).repeat_interleave(torch.tensor([side**2 for side in sides]))
    return (scale[None, :] <= scale[:, None]).to(device)


def warmed(warmth: float) -> Callable[[Tensor, Sampler], Tensor]:
    """The law of logits that are filtered first, as the sampler does, then divided by ``warmth``."""
    return lambda logits, sampler: (sampler.probabilities(logits).log() / warmth).softmax(dim=-1)


@dataclass(frozen=True)
class VAR(Strategy[VARNetwork]):
    name: ClassVar[str] = "var"
    title: ClassVar[str] = "VAR"
    paper: ClassVar[str] = "2404.02905"
    tokenizer: ClassVar[str] = "multiscale"
    sequential_conditionals: ClassVar[bool] = False  # a map's tokens are all predicted from smaller maps

    scales: str = ""
    """Sides of the maps, small to large; empty for the published ones of the grid."""
    code_width: int = 8
    """Of the tokenizer's code vectors."""
    warmth: float = 1.0
    """Divides the filtered logits of the first ``warm_scales`` scales (CoDe's sampling)."""
    warm_scales: int = 7

    def __post_init__(self) -> None:
        if not 0 < self.warmth < math.inf:
            raise UserError(
                f"option 'warmth' of strategy '{self.name}' is {self.warmth}; a number above 0 is needed"
            )

    def sides(self, grid: tuple[int, int]) -> tuple[int, ...]:
        if grid[0] != grid[1]:
            raise UserError(f"strategy '{self.name}' has square maps, not {grid[0]}x{grid[1]}")
        if not self.scales:
            return sides_for(grid[0])
        words = self.scales.split()
        sides = tuple(int(word) for word in words if word.isdecimal())
        ascending = list(sides) == sorted({1, *sides} - {0})  # the class has one row: that of the first map
        if len(sides) < len(words) or not ascending or sides[-1] != grid[0]:
            raise UserError(
                f"option 'scales' of strategy '{self.name}' is '{self.scales}'; expected ascending sides "
                f"from 1 that end with {grid[0]}, e.g. '{' '.join(map(str, sides_for(grid[0])))}'"
            )
        return sides

    def network(self, config: NetworkConfig) -> VARNetwork:
        return VARNetwork(config, self.sides(config.grid), self.code_width)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        sizes = self.sizes(grid, 0)
        return Lesson(torch.arange(sum(sizes)).expand(batch, -1), sizes)

    def taught_logits(self, network: VARNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        scales = range(len(network.sides))
        fed = network.quantiser.inputs(tokens).split([side**2 for side in network.sides[1:]], dim=1)
        view = View(mask=scale_mask(network.sides, tokens.device))
        return network(Condition(labels), Sums(list(fed)), scales, view)

    def places(self, grid: tuple[int, int]) -> int:
        return sum(self.sizes(grid, 0))

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return tuple(side**2 for side in self.sides(grid))

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        return np.arange(sum(sizes))

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        # Guidance grows with the number of the scale: none for the first, all for the last.
        progress = np.arange(len(sizes)) / max(len(sizes) - 1, 1)
        maps = tuple((side, side) for side in self.sides(grid))
        return Plan(grid, order, sizes, given, progress=np.repeat(progress, sizes), maps=maps)

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth, self.places(config.grid)

    def ask(self, logits: Tensor, at: slice, scale: int) -> Ask:
        warm = self.warmth != 1.0 and scale < self.warm_scales
        return Ask(logits, at, warmed(self.warmth) if warm else None)

    def decode(self, network: VARNetwork, plan: Plan, rows: Rows) -> Decoding:
        cache = network.cache(len(rows), *self.cache_shape(network.config))
        condition, sums = Condition(rows.labels), Sums()
        for scale, at in enumerate(plan.groups()):
            # A scale sees itself and all that is filled: no mask.
            logits = network(condition, sums, range(scale, scale + 1), View(start=at.start), cache)
            tokens = yield self.ask(logits, at, scale)
            sums.drew(scale, tokens[: len(rows) // rows.branches])
