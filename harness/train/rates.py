"""The learning rate of a step, the same curve for networks, tokenizers and classifiers."""

import math


def rate_of_step(step: int, rate: float, steps: int, warmup: int, hold: int = 0, least: float = 0.0) -> float:
    """Linear warm-up over ``warmup`` steps, ``hold`` at the full rate, then a half cosine to ``least``."""
    if step < warmup:
        return rate * (step + 1) / warmup
    start = warmup + hold
    done = max(0, step - start) / max(1, steps - start)
    return least + (rate - least) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
