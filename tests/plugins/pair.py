"""Pair: two raster networks draw every token together, a wide and a narrow one (an example, no paper)."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from backbones.transformer import View
from strategies.decoding.base import TrainingFree
from strategies.decoding.requests import Ask


@dataclass(frozen=True)
class Pair(TrainingFree):
    name: ClassVar[str] = "pair"
    title: ClassVar[str] = "Pair"
    paper: ClassVar[str] = "none"
    base: ClassVar[str | None] = "raster"
    roles: ClassVar[dict] = {"narrow": "raster-narrow", "wide": "raster"}

    def cache_shapes(self, config):
        return {role: (config.of(role).trunk.depth, config.places) for role in self.roles}

    def decode(self, network, plan, rows):
        phases = {role: one.phases(torch.arange(plan.places)) for role, one in network.roles.items()}
        shapes = self.cache_shapes(network["wide"].config)
        shapes["narrow"] = (network["narrow"].config.trunk.depth, plan.places)
        caches = {role: one.cache(len(rows), *shapes[role]) for role, one in network.roles.items()}
        tokens = None
        for slot, at in enumerate(plan.groups()):
            logits = 0
            for role, one in network.roles.items():
                x = (
                    one.class_embedding(rows.labels)[:, None]
                    if tokens is None
                    else one.token_embedding(tokens)
                )
                logits = logits + one(x, phases[role][slot : slot + 1], View(start=slot), caches[role]) / 2
            tokens = yield Ask(logits, at)
