"""Bits that a trained network's decode loses, from images that it decodes and then judges itself.

For tokens x drawn from the decode, log q(x) - log p(x) is an unbiased sample of KL(q || p): q is what the
loop drew from, p the network's one-at-a-time conditionals in the same order. By step it is the
log-probability lost by drawing the step's group independently; single images may gain.

The judge is the network, where it may be a poor one: LPD's groups are spread over the image, and its contexts
of tokens right beside the asked one (as at one token per step in a locality order) are rare in its training.
Part of its figure is then that strangeness, not lost dependence. Figures of different networks have different
judges and are not compared; order rules of one network are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from harness.lossiness.conditionals import (
    Undefined,
    decoded_log_probabilities,
    sequential_log_probabilities,
)
from harness.lossiness.worlds import OWN, ordered_plan
from harness.subject.subject import Subject
from reports.inference import Estimate, mean_estimate
from strategies.decoding.sampling import StreamSampler

BATCH = 50
"""Images decoded and judged at a time; the judge's pass holds up to twice the grid's positions."""


@dataclass(frozen=True)
class LostBits:
    """bits: float32 [n, K], lost by each image at each step; sizes: tokens of the steps [K]."""

    bits: np.ndarray
    sizes: tuple[int, ...]

    @property
    def total(self) -> Estimate:
        """Mean bits per image with its 95 % interval over images."""
        return mean_estimate(self.bits.sum(axis=1, dtype=np.float64))


def estimate(
    subject: Subject, images: int, rule: str = OWN, report: Callable[[float], None] = lambda share: None
) -> LostBits:
    """The loss of the first ``images`` images of the run, at the cell's steps, guidance and temperature.

    rule: another order for the same groups (``worlds.RULES``). report: called with the share done.
    Raises Undefined for filtered draws, and where a network cannot judge one token at a time.
    """
    prepared, cell = subject.prepared, subject.prepared.cell
    if cell.top_k > 0 or cell.top_p < 1:
        raise Undefined("top_k and top_p give tokens probability 0, so a log-probability lost is infinite")
    parts: list[np.ndarray] = []
    for start in range(0, images, BATCH):
        indices = range(start, min(start + BATCH, images))
        streams, labels = prepared.streams(indices), subject.labels(indices)
        plan = ordered_plan(prepared.strategy, prepared.config.grid, cell.steps, streams, rule)
        tokens, decoded = decoded_log_probabilities(
            subject.network,
            prepared.strategy,
            plan,
            labels,
            StreamSampler(streams, cell.temperature),
            prepared.guidance,
            cell.temperature,
        )
        judged = sequential_log_probabilities(
            subject.network, prepared.strategy, plan, labels, tokens, prepared.guidance, cell.temperature
        )
        lost = (decoded - judged) / np.log(2)  # [B, N]
        by_step = [lost[:, at].sum(dim=1) for at in plan.groups()]
        sizes = tuple(at.stop - at.start for at in plan.groups())
        parts.append(torch.stack(by_step, dim=1).float().cpu().numpy())
        report(indices.stop / images)
    return LostBits(np.concatenate(parts), sizes)
