"""Halton: MaskGIT's network in an order spread out evenly (Besnier et al., arXiv 2503.17076)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from backbones.config import NetworkConfig
from pardec.errors import UserError
from strategies.decoding.base import Lesson, TrainingFree
from strategies.decoding.decode import Rows
from strategies.decoding.mask_schedules import halton_sizes
from strategies.decoding.orders import OrderRule, ruled_orders
from strategies.decoding.plan import Plan, known_first
from strategies.decoding.requests import Commit, Decoding, Draft
from strategies.decoding.sampling import Sampler
from strategies.decoding.streams import Streams
from strategies.maskgit import MaskedNetwork, masked_logits


def sharpened(multiplier: float) -> Callable[[Tensor, Sampler], Tensor]:
    """The sampler's distribution of logits that are multiplied first."""
    return lambda guided, sampler: sampler.probabilities(multiplier * guided)


@dataclass(frozen=True)
class Halton(TrainingFree[MaskedNetwork]):
    name: ClassVar[str] = "halton"
    title: ClassVar[str] = "Halton"
    paper: ClassVar[str] = "2503.17076"
    base: ClassVar[str] = "maskgit"
    any_order: ClassVar[bool] = True

    order: OrderRule = "halton"
    roll: bool = False
    """Every image's order is shifted, in turn, by a number of its own."""
    sharpness: float = 1.0
    """What logits are multiplied by at the first step; the inverse of a temperature."""
    last_sharpness: float = 1.0
    """The same at the last step; linear between."""
    sharpness_power: float = 1.0
    halved_steps: int = 0
    """First steps, whose multiplier is halved."""

    def __post_init__(self) -> None:
        for name in ("sharpness", "last_sharpness", "sharpness_power"):
            value = getattr(self, name)
            if not 0 < value < math.inf and (name, value) != ("sharpness_power", 0):
                raise UserError(
                    f"option '{name}' of strategy 'halton' is {value}; a number above 0 is needed"
                )
        if self.halved_steps < 0:
            raise UserError(
                f"option 'halved_steps' of strategy 'halton' is {self.halved_steps}; at least 0 is needed"
            )

    def taught_logits(self, network: MaskedNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        return masked_logits(network, tokens, labels, lesson)

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        return range(1, grid[0] * grid[1] + 1)

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return halton_sizes(grid[0] * grid[1] - given, steps)

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        orders = ruled_orders(self.order, grid, streams)  # [1 or B, N]
        if self.roll:
            places = orders.shape[1]
            shifts = (streams.uniform("roll", 1)[:, 0].astype(np.float64) * places).astype(int)
            orders = np.stack(
                [np.roll(orders[row % len(orders)], shift) for row, shift in enumerate(shifts)]
            )  # [B, N]
        return known_first(orders, known)

    def arrange(
        self, grid: tuple[int, int], order: np.ndarray, sizes: tuple[int, ...], given: int = 0
    ) -> Plan:
        # Guided by the steps, as the confidence order is, so that the two compare.
        progress = np.concatenate([np.zeros(given), np.repeat(np.linspace(0, 1, len(sizes)), sizes)])
        return Plan(grid, order, sizes, given, progress=progress)

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return 0, 0

    def multipliers(self, steps: int) -> list[float]:
        """Of each step's logits."""
        ramp = torch.linspace(self.sharpness, self.last_sharpness, steps) ** self.sharpness_power
        ramp[: self.halved_steps] *= 0.5
        return ramp.tolist()

    def decode(self, network: MaskedNetwork, plan: Plan, rows: Rows) -> Decoding:
        codes, groups = network.blank(plan, rows), plan.groups()
        for at, multiplier in zip(groups, self.multipliers(len(groups)), strict=True):
            logits = network(rows.labels, rows.repeat(codes), rows.order, at)
            law = None if multiplier == 1 else sharpened(multiplier)
            drawn = yield Draft(logits, at, noise="place", law=law)
            codes[:, at] = drawn.tokens
            # A mask that is drawn stays one for the network, and in the image is the last code.
            yield Commit(at, drawn.tokens.clamp(max=network.mask - 1))
