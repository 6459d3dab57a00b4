"""The recipe of the controlled tier: one run gives a finished network at each mark.

A leg leads from one mark to the next: the rate is warmed up, constant, then falls to nothing, so that a leg
ends in a finished network, and the next leg begins with that network and fresh momenta ("warm-up, stable,
decay, simplified": Wen et al., arXiv 2410.05192). So a longer budget redoes nothing, and a mark's weights are
all that it takes to go on.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MarkRecipe:
    """The same for every network. Rates are per step."""

    base_images: int = 50_000
    marks: tuple[int, ...] = (1, 2, 4, 8)
    """In base budgets, ascending."""
    least_gain: float = 0.02
    """Training goes on while the mark before's validation loss fell by more than this share."""
    batch: int = 16
    rate: float = 3e-3
    """Of AdamW: embeddings, norms, head."""
    matrix_rate: float = 6e-3
    """Of Muon (Jordan et al. 2024; scale of updates as AdamW's: Liu et al., arXiv 2502.16982): matrices of
    the blocks."""
    warmup_steps: int = 200
    """Of each leg."""
    decay_share: float = 0.2
    """Of a leg's steps; linear to zero."""
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.95
    weight_decay: float = 0.05
    """On tensors of two or more dimensions."""
    clip_norm: float = 1.0
    label_drop: float = 0.1
    validation_images: int = 2000
    seed: int = 0

    def end_of(self, mark: int) -> int:
        """The step at which a mark's network is finished."""
        return self.base_images * mark // self.batch

    def leg(self, step: int) -> tuple[int, int]:
        """First step of the leg that a step is in, and the first one after it: the mark."""
        ends = [0, *map(self.end_of, self.marks)]
        at = bisect_right(ends, step)
        if at == len(ends):
            raise ValueError(f"step {step} lies beyond the last mark, step {ends[-1]}")
        return ends[at - 1], ends[at]

    def progress(self, step: int) -> float:
        """Share of its leg that lies before a step."""
        begin, end = self.leg(step)
        return (step - begin) / (end - begin)

    def rate_share(self, step: int) -> float:
        """Share of the full rate at a step."""
        begin, end = self.leg(step)
        return min(
            1.0, (step - begin + 1) / self.warmup_steps, (end - step) / ((end - begin) * self.decay_share)
        )

    def next_mark(self, losses: Mapping[int, float]) -> int | None:
        """The mark to train to, given the validation losses of those reached; None where learning is over."""
        missing = [mark for mark in self.marks if mark not in losses]
        if not missing or (len(losses) > 1 and not still_learning(losses, self.least_gain)):
            return None
        return missing[0]


def still_learning(losses: Mapping[int, float], least_gain: float) -> bool:
    """Whether the last mark's loss is below that of the one before by more than the share ``least_gain``."""
    before, last = (losses[mark] for mark in sorted(losses)[-2:])
    return last < before * (1 - least_gain)


def plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content as it is read back from JSON."""
    read: dict[str, Any] = json.loads(json.dumps(content, sort_keys=True))
    return read


def goes_on(stored: Any, own: Any) -> bool:
    """Whether a run made of ``stored`` may go on as one made of ``own``: all that was stored is the same.

    Settings that were unknown when it was stored don't count; they come with defaults that change nothing.
    """
    if isinstance(stored, dict):
        return isinstance(own, dict) and all(
            key in own and goes_on(value, own[key]) for key, value in stored.items()
        )
    return bool(stored == own)
