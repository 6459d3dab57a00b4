"""MaskGIT: all places are drawn at every step, the surest kept (Chang et al., arXiv 2202.04200).

As published with classes and guidance by Besnier and Chen (arXiv 2310.14400).
"""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.transformer import Network, Trunk, View, make_norm, modulate
from strategies.decoding.base import Lesson, Strategy
from strategies.decoding.decode import Rows
from strategies.decoding.mask_schedules import MaskSchedule, known_share, maskgit_sizes
from strategies.decoding.orders import raster
from strategies.decoding.plan import Plan, known_first
from strategies.decoding.requests import EVERYWHERE, Commit, Decoding, Draft, Drawn, Request, Uniform
from strategies.decoding.streams import Streams

WARM_UP_STEPS = 2
LEAST_UNIFORM = 2.0**-25
"""Below every number above 0 that is drawn: Gumbel noise stays finite."""


class MaskedNetwork(Network):
    """Sees all places at once, unknown ones as the mask, whose id follows the codes.

    As published: learned positions, the class through adaLN alone, registers behind the tokens, and a head
    tied to the token table, which also scores the mask. On a rotary trunk with a class prefix, the mask's row
    is all that it adds to raster's network.
    """

    takes_registers: ClassVar[bool] = True

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        trunk, width = config.trunk, config.trunk.width
        self.adaln = trunk.conditioning == "adaln"
        trunk.require(type(self).__name__, positions="learned" if self.adaln else "rotary")
        if config.registers and not self.adaln:
            raise ValueError(f"{type(self).__name__} has registers under adaLN only")
        self.mask = config.codes
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.token_embedding = nn.Embedding(config.codes + 1, width)
        if config.registers:
            self.registers = nn.Parameter(torch.empty(config.registers, width))
        self.trunk = Trunk(trunk)
        self.norm = make_norm(trunk)
        if self.adaln:
            self.positions = nn.Parameter(torch.empty(config.places, width))
            self.norm_bias = nn.Parameter(torch.empty(width))
            self.final_modulation = nn.Linear(width, 2 * width)
            self.head_bias = nn.Parameter(torch.empty(config.codes + 1))
        else:
            self.head = nn.Linear(width, config.codes, bias=False)

    def forward(self, labels: Tensor, codes: Tensor, order: Tensor, at: slice = EVERYWHERE) -> Tensor:
        """Logits [R, n, V] of the places ``at``, with codes [R, N] by place and their positions [1 or R, N];
        as published [R, n, V + 1]."""
        x = self.token_embedding(codes)  # [R, N, d]
        condition = self.class_embedding(labels).unsqueeze(1)  # [R, 1, d]
        if not self.adaln:
            phases = self.phases(torch.cat([torch.zeros_like(order[:, :1]), 1 + order], dim=1))
            x = self.drop_embedded(torch.cat([condition, x], dim=1))
            x = self.trunk(x, phases, View())[:, 1:]
            return self.head(self.norm(x[:, at])).float()
        condition = F.silu(condition)
        x = x + self.positions[order]
        if self.config.registers:
            x = torch.cat([x, self.registers.expand(len(x), -1, -1)], dim=1)
        modulations = self.trunk.modulations(condition)
        x = self.trunk(self.drop_embedded(x), None, View(), modulations=modulations)
        x = self.norm(x[:, : codes.shape[1]][:, at]) + self.norm_bias
        shift, scale = self.final_modulation(condition).chunk(2, dim=-1)
        return F.linear(modulate(x, shift, scale), self.token_embedding.weight, self.head_bias).float()

    def blank(self, plan: Plan, rows: Rows) -> Tensor:
        """Codes [B, N] by place before the first step: those given, then masks."""
        batch = len(rows) // rows.branches
        codes = torch.full((batch, plan.places), self.mask, device=rows.labels.device)
        if rows.known is not None:
            codes[:, : plan.given] = rows.known[:batch]
        return codes


def masked_logits(network: MaskedNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
    """Taught logits [B, N, V] by place: in one pass around the tokens that the lesson shows, or of its
    groups, a pass each, around all groups before."""
    codes, places = tokens.gather(1, lesson.order), tokens.shape[1]
    if lesson.shown is not None:
        hidden = ~lesson.shown.gather(1, lesson.order)
        return network(labels, codes.masked_fill(hidden, network.mask), lesson.order)
    parts, start = [], 0
    for size in lesson.sizes or (1,) * places:
        hidden = torch.arange(places, device=tokens.device) >= start
        fed = codes.masked_fill(hidden, network.mask)
        parts.append(network(labels, fed, lesson.order, slice(start, start + size)))
        start += size
    return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class MaskGIT(Strategy[MaskedNetwork]):
    name: ClassVar[str] = "maskgit"
    title: ClassVar[str] = "MaskGIT"
    paper: ClassVar[str] = "2202.04200"
    any_order: ClassVar[bool] = True

    schedule: MaskSchedule = "arccos"
    """Share of the tokens that is known, in training at a random progress."""
    noise: Literal["linear", "warm_up", "random", "none"] = "linear"
    """In the order of confidence. linear: Gumbel noise that falls to nothing; warm_up: two steps at random;
    random: all of them."""
    noise_scale: float = 4.5
    resample_known: bool = False
    """Published quirk: all that is known takes the new draw at every step."""
    taught: Literal["all", "masked"] = "all"
    """Places whose loss counts: all as published, or those that are masked as in the first paper."""

    @property
    def revises(self) -> bool:  # type: ignore[override]
        return self.resample_known

    @property
    def cached_equals_taught(self) -> bool:  # type: ignore[override]
        return not self.resample_known

    def network(self, config: NetworkConfig) -> MaskedNetwork:
        return MaskedNetwork(config)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        places = grid[0] * grid[1]
        share = known_share(torch.rand(batch, 1, generator=generator), self.schedule)
        shown = torch.rand(batch, places, generator=generator) < share
        return Lesson(torch.arange(places).expand(batch, -1), shown=shown)

    def taught_logits(self, network: MaskedNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        return masked_logits(network, tokens, labels, lesson)

    def loss(self, network: MaskedNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        if self.taught == "all" or lesson.shown is None:
            return super().loss(network, tokens, labels, lesson)
        logits, targets = self.taught_logits(network, tokens, labels, lesson), tokens.gather(1, lesson.order)
        losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")  # [B, N]
        hidden = ~lesson.shown.gather(1, lesson.order)
        return (losses * hidden).sum() / hidden.sum().clamp(min=1)

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        places = grid[0] * grid[1]
        return range(min(2, places), places + 1)

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return maskgit_sizes(grid[0] * grid[1] - given, steps, self.schedule)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        return known_first(raster(grid)[None], known)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        return Plan(grid, order, sizes, given, opened=True)

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return 0, 0

    def decode(self, network: MaskedNetwork, plan: Plan, rows: Rows) -> Decoding:
        codes, at = network.blank(plan, rows), slice(plan.given, plan.places)
        sizes = plan.sizes or ()
        ratios = torch.linspace(0, 1, len(sizes)).tolist()
        for step, (ratio, known) in enumerate(zip(ratios, accumulate(sizes), strict=True)):
            logits = network(rows.labels, rows.repeat(codes), rows.order, at)
            before = plan.given + known - sizes[step]
            drawn = yield Draft(logits, at, clock=ratio, count=before)
            confidence = yield from self.confidence(drawn, at, step, ratio)  # [B, n]
            stands = codes[:, at] != network.mask
            confidence = confidence.masked_fill(stands, float("inf"))
            accepted = confidence >= confidence.topk(known, dim=1).values[:, -1:]  # ties all alike
            if not self.resample_known:
                accepted &= ~stands
            codes[:, at] = torch.where(accepted, drawn.tokens, codes[:, at])
            if step < len(sizes) - 1:  # a mask that is drawn leaves its place unknown
                accepted = accepted & (drawn.tokens != network.mask)
            yield Commit(at, drawn.tokens.clamp(max=network.mask - 1), where=accepted)

    def confidence(self, drawn: Drawn, at: slice, step: int, ratio: float) -> Generator[Request, Any, Tensor]:
        """What places are ranked by, [B, n]: the probability of the token drawn there before filters, which
        would make many certain alike, or its logarithm and noise; ``ratio``: of the steps that are over."""
        if self.noise == "random" or (self.noise == "warm_up" and step < WARM_UP_STEPS):
            uniform: Tensor = yield Uniform("confidence", at)
            return uniform
        law = drawn.sampler.warmed(drawn.logits).softmax(dim=-1)
        probability = law.gather(2, drawn.tokens.unsqueeze(2)).squeeze(2)
        if self.noise != "linear":
            return probability
        uniform = yield Uniform("confidence", at)
        gumbel = -(-uniform.double().clamp(min=LEAST_UNIFORM).log()).log()
        return probability.log() + self.noise_scale * (1 - ratio) * gumbel
