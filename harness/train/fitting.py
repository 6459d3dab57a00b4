"""The loop that fits what is frozen while strategies are compared: tokenizers, feature network, judge."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from harness.images.data import Augmentation, Dataset, epochs, to_float
from harness.train.rates import rate_of_step


@dataclass(frozen=True)
class Budget:
    """AdamW over a one-cycle rate: linear warm-up, then cosine to almost zero."""

    steps: int
    batch: int
    rate: float = 2e-3
    warmup: int = 300
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float | None = None
    """Most norm of a gradient."""
    augmentation: Augmentation | None = None
    seed: int = 0

    def rate_at(self, step: int) -> float:
        return rate_of_step(step, self.rate, self.steps, self.warmup)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What modules draw of torch's own generator on the CPU, their first weights, follows from ``seed``; the
    generator is afterwards what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def fit(
    name: str,
    learning: Sequence[nn.Parameter],
    train: Dataset,
    budget: Budget,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    watch: Callable[[], dict[str, float]],
    points: int = 24,
) -> list[dict[str, float]]:
    """Minimise the loss of float images [B, 3, H, W] in [-1, 1] and their labels [B] over ``learning``.

    watch: figures of held-out images, asked for at about ``points`` steps; returns them with the mean loss
    since the point before.
    """
    generator = torch.Generator().manual_seed(budget.seed)
    device = learning[0].device
    optimiser = torch.optim.AdamW(
        learning, lr=budget.rate, betas=budget.betas, weight_decay=budget.weight_decay
    )
    curve: list[dict[str, float]] = []
    total, every = 0.0, max(1, budget.steps // points)
    rows = epochs(len(train), budget.batch, generator)
    for step in tqdm(range(budget.steps), desc=name, unit="step", disable=None):
        for group in optimiser.param_groups:
            group["lr"] = budget.rate_at(step)
        chosen = next(rows)
        images = to_float(train.images[chosen])  # [B, 3, H, W]
        if budget.augmentation is not None:
            images = budget.augmentation(images, generator)
        images = images.to(device, memory_format=torch.channels_last)
        loss = loss_of(images, train.labels[chosen].to(device))
        optimiser.zero_grad()
        loss.backward()
        if budget.clip is not None:
            torch.nn.utils.clip_grad_norm_(learning, budget.clip)
        optimiser.step()
        total += loss.item()
        if (step + 1) % every == 0:
            point = {"step": step + 1, "train": total / every} | watch()
            curve.append(point)
            total = 0.0
            figures = ", ".join(f"{key} {value:.4f}" for key, value in point.items() if key != "step")
            tqdm.write(f"{name} step {step + 1}: {figures}", file=sys.stderr)
    return curve
