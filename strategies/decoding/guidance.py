"""Classifier-free guidance: u + s (c - u), with a scale per place, read off the plan's clock."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from strategies.decoding.plan import Plan

Schedule = Literal["constant", "linear", "power-cosine"]
SCHEDULES: tuple[Schedule, ...] = ("constant", "linear", "power-cosine")


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance u + s (c - u) (Ho & Salimans, arXiv 2207.12598), with the scale by place:

    constant: s. linear: start + (s - start) p. power-cosine: 1 + (s - 1)(1 - cos(pi p^power)) / 2 (RAR).

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
        """The scale of every place, float64 [P]."""
        return self.weights_at(plan.progress, plan.count)

    def weights_at(self, progress: np.ndarray, count: np.ndarray) -> np.ndarray:
        """The scale at each progress (0..1) and prediction count, float64."""
        if self.schedule == "linear":
            weights = self.start + (self.scale - self.start) * progress
        elif self.schedule == "power-cosine" and self.power != 0:
            weights = 1.0 + (self.scale - 1.0) * ((1.0 - np.cos(np.pi * progress**self.power)) / 2.0)
        else:
            weights = np.full(progress.shape, 1.0 + (self.scale - 1.0))
        if self.interval >= 0:
            weights = np.where(count <= self.interval, weights, 1.0)
        return weights

    def scales(self, progress: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, ...]:
        """Weights of the differences between neighbouring branches: here one, class to no class."""
        return (self.weights_at(progress, count),)


class Guiding(Protocol):
    """What the loop asks of guidance: one weight per place for each further branch of rows."""

    def scales(self, progress: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, ...]: ...


def linear_guidance(scales: tuple[float, float]) -> Guidance | None:
    """Guidance from a to b with the progress, decided by b alone: none up to 1 (RandAR's pair of scales)."""
    first, last = scales
    if last <= 1:
        return None
    return Guidance(last) if first == last else Guidance(last, "linear", start=first)
