"""CoDe: a large network drafts small maps, a small one refines large maps (Chen et al., arXiv 2411.17787)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from backbones.config import NetworkConfig
from backbones.networks import Networks
from backbones.transformer import View
from pardec.errors import UserError
from strategies.decoding.base import Lesson, TrainingFree
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Decoding
from strategies.var import VAR, Condition, Sums, VARNetwork


@dataclass(frozen=True)
class CoDe(TrainingFree[VARNetwork], VAR):
    name: ClassVar[str] = "code"
    title: ClassVar[str] = "CoDe"
    paper: ClassVar[str] = "2411.17787"
    base: ClassVar[str | None] = "var"
    roles: ClassVar[Mapping[str, str]] = {"drafter": "var", "refiner": "var-small"}

    refined: int = 2
    """How many of the largest maps the refiner draws; the paper's N is the number of the others."""

    def taught_logits(  # type: ignore[override]
        self, network: Networks, tokens: Tensor, labels: Tensor, lesson: Lesson
    ) -> Tensor:
        drafts, refined = (
            VAR.taught_logits(self, network[role], tokens, labels, lesson)  # type: ignore[arg-type]
            for role in self.roles
        )
        drafted = sum(lesson.sizes[: -self.refined]) if lesson.sizes else 0
        return torch.cat([drafts[:, :drafted], refined[:, drafted:]], dim=1)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        if not 1 <= self.refined < len(sizes):
            raise UserError(
                f"option 'refined' of strategy '{self.name}' is {self.refined}; expected 1 to "
                f"{len(sizes) - 1} of the {len(sizes)} maps on a {grid[0]}x{grid[1]} grid"
            )
        return super().arrange(grid, order, sizes, given)

    def cache_shapes(self, config: NetworkConfig) -> Mapping[str, tuple[int, int]]:
        drafted = sum(self.sizes(config.grid, 0)[: -self.refined])
        depths = {role: config.of(role).trunk.depth for role in self.roles}
        return {
            "drafter": (depths["drafter"], drafted),
            "refiner": (depths["refiner"], self.places(config.grid)),
        }

    def decode(self, network: Networks, plan: Plan, rows: Rows) -> Decoding:  # type: ignore[override]
        drafter, refiner = (network[role] for role in self.roles)
        images, sums, groups = len(rows) // rows.branches, Sums(), plan.groups()
        hand_over = len(groups) - self.refined
        cache = drafter.cache(len(rows), drafter.config.trunk.depth, groups[hand_over].start)
        condition = Condition(rows.labels)
        for scale, at in enumerate(groups[:hand_over]):
            logits = drafter(condition, sums, range(scale, scale + 1), View(start=at.start), cache)
            tokens = yield self.ask(logits, at, scale)
            sums.drew(scale, tokens[:images])
        # Widths differ, so the refiner computes all drafted places anew, each scale seeing the smaller ones.
        cache = refiner.cache(len(rows), refiner.config.trunk.depth, plan.places)
        condition = Condition(rows.labels)
        for scale, at in enumerate(groups[hand_over:], start=hand_over):
            first = 0 if scale == hand_over else scale
            read = groups[first : scale + 1]
            view = View(start=read[0].start, runs=tuple((one.stop - one.start, one.stop) for one in read))
            last = at.stop - at.start
            logits = refiner(condition, sums, range(first, scale + 1), view, cache, last=last)
            tokens = yield self.ask(logits, at, scale)
            sums.drew(scale, tokens[:images])
