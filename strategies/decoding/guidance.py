"""Classifier-free guidance: u + s (c - u), with a scale per place, read off the plan's clock."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from strategies.decoding.plan import Plan

Schedule = Literal["constant", "linear", "power-cosine"]
SCHEDULES: tuple[Schedule, ...] = ("constant", "linear", "power-cosine")


@dataclass(frozen=True)
class Guidance:
    """constant: s. linear: start + (s - start) p. power-cosine: 1 + (s - 1)(1 - cos(pi p^power)) / 2 (RAR).

    p is the plan's progress. ``interval`` >= 0 guides only places whose prediction count is at most that
    (LlamaGen, PAR); elsewhere the conditional logits stand.
    """

    scale: float
    schedule: Schedule = "constant"
    power: float = 1.0
    interval: int = -1
    start: float = 1.0
    """Scale at which a linear schedule begins (RandAR's pair of scales)."""

    def weights(self, plan: Plan) -> np.ndarray:
        """The scale of every place, float64 [N]."""
        progress = plan.progress
        if self.schedule == "constant":
            ramp = np.ones(plan.places)
        elif self.schedule == "linear":
            ramp = progress
        else:
            ramp = (1.0 - np.cos(np.pi * progress**self.power)) / 2.0
            if self.power == 0:
                ramp = np.ones(plan.places)
        start = self.start if self.schedule == "linear" else 1.0
        weights = start + (self.scale - start) * ramp
        if self.interval >= 0:
            weights = np.where(plan.count <= self.interval, weights, 1.0)
        return weights

    def scales(self, plan: Plan) -> tuple[np.ndarray, ...]:
        """Weights [N] of the differences between neighbouring branches: here one, class to no class."""
        return (self.weights(plan),)


def linear_guidance(scales: tuple[float, float]) -> Guidance | None:
    """Guidance from a to b with the progress, decided by b alone: none up to 1 (RandAR's pair of scales)."""
    first, last = scales
    if last <= 1:
        return None
    return Guidance(last) if first == last else Guidance(last, "linear", start=first)


@dataclass(frozen=True, eq=False)
class ContextGuidance:
    """Guidance by the class and by the given tokens: u + s (c - p) + t (p - u) (RandAR, arXiv 2412.01827).

    c: the class, p: no class, u: no class and a thinned context. kept: bool [B, given], the given places
    whose tokens u still sees. Only for strategies that read ``Rows.kept``.
    """

    by_class: Guidance
    by_context: Guidance
    kept: np.ndarray

    def scales(self, plan: Plan) -> tuple[np.ndarray, ...]:
        return self.by_class.weights(plan), self.by_context.weights(plan)
