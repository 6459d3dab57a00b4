"""From logits to tokens: the branches of guidance combined, filters, and one number for each draw."""

from collections.abc import Callable

import torch
from torch import Tensor

from strategies.decoding.sampling import Sampler


def combine(logits: Tensor, weights: list[Tensor]) -> Tensor:
    """Guided logits [B, n, V]: the last branch and differences of neighbours by their weights [.., n, 1]."""
    branches = logits.chunk(1 + len(weights))
    # Exactly the upper branch at weight 1, which a sum of differences is not.
    guided = torch.lerp(branches[-1], branches[-2], weights[-1])
    for upper, lower, weight in zip(branches[:-2], branches[1:-1], weights[:-1], strict=True):
        guided = guided + weight * (upper - lower)
    return guided


def draw_guided(
    logits: Tensor, weights: list[Tensor], numbers: Tensor, sampler: Sampler
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [B, n] of logits [R, n, V] and a number [B, n] each; the guided logits, float32 [B, n, V]; and
    what is finite where they are, [B, n]."""
    logits = logits.float()
    if weights:
        logits = combine(logits, weights)
    tokens, soundness = sampler.draw(logits, numbers)
    return tokens, logits, soundness


Drawing = Callable[[Tensor, list[Tensor], Tensor, Sampler], tuple[Tensor, Tensor, Tensor]]
