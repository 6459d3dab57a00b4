"""How many tokens a masked decoder knows after each step, in float32 as published, for it is truncated."""

import math
from typing import Literal

import torch
from torch import Tensor

from strategies.decoding.schedules import check_steps

MaskSchedule = Literal["arccos", "cosine", "linear", "root", "square"]


def known_share(progress: Tensor, schedule: MaskSchedule) -> Tensor:
    """Share of the tokens that MaskGIT knows (arXiv 2202.04200) at each progress in 0..1."""
    if schedule == "arccos":
        return 1 - torch.acos(progress) / (math.pi / 2)
    if schedule == "cosine":
        return 1 - torch.cos(progress * (math.pi / 2))
    return {"linear": progress, "square": progress**2, "root": progress.sqrt()}[schedule]


def maskgit_sizes(unknown: int, steps: int, schedule: MaskSchedule = "arccos") -> tuple[int, ...]:
    """Sizes of the published confidence sampler (arXiv 2310.14400): its share starts at 0, so the first step
    writes one token. Under ``root`` a step may write nothing."""
    check_steps(unknown, steps)
    # Truncated in float32: dividing counts instead, or float64, gives other sizes.
    return _grown(unknown, known_share(torch.linspace(0, 1, steps), schedule))


def halton_sizes(unknown: int, steps: int) -> tuple[int, ...]:
    """Sizes of the Halton scheduler (arXiv 2503.17076): arccos, a step ahead of the confidence sampler's."""
    check_steps(unknown, steps)
    after = torch.tensor([step / steps for step in range(1, steps + 1)], dtype=torch.float32)
    return _grown(unknown, known_share(after, "arccos"))


def _grown(unknown: int, shares: Tensor) -> tuple[int, ...]:
    """What each step adds where ``shares`` of all are known after it, and a token a step at least."""
    aims = (unknown * shares).int().tolist()
    known = [max(step, aim) for step, aim in enumerate(aims, start=1)]
    known[-1] = unknown
    return tuple(now - before for before, now in zip([0, *known], known, strict=False))
