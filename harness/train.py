"""Trains any strategy's network on image codes: seeded, resumable at any instant, under one budget.

What differs between methods (orders, group sizes, annealing) comes from the strategy's lesson; data, steps,
batch, optimiser, schedule, dropout, label drop and averaging are the same for all.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from backbones.config import NetworkConfig
from backbones.transformer import Network, initialise, parameter_count
from strategies.decoding.base import Strategy, drop_labels


@dataclass(frozen=True)
class Recipe:
    """The common budget. Rates are per step; ``steps`` counts optimiser steps."""

    steps: int = 24_000
    batch: int = 16
    rate: float = 1.2e-3
    warmup_steps: int = 300
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    label_drop: float = 0.1
    averaging: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept."""
    seed: int = 0
    validate_every: int = 1000
    save_every_s: float = 120.0

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then a half cosine to zero."""
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Codes:
    """Image codes [variants, n, N] (variant 0 is the plain image) and labels [n]."""

    codes: Tensor
    labels: Tensor

    @classmethod
    def from_npz(cls, path: Path) -> "Codes":
        with np.load(path) as file:
            return cls(torch.from_numpy(file["codes"]), torch.from_numpy(file["labels"]).long())

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random images, each in a random variant: tokens int64 [B, N], labels [B]."""
        variants, images = self.codes.shape[:2]
        image = torch.randint(images, (size,), generator=generator)
        variant = torch.randint(variants, (size,), generator=generator)
        return self.codes[variant, image].long(), self.labels[image]

    def slices(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The plain images in order, in batches."""
        for start in range(0, self.codes.shape[1], size):
            yield self.codes[0, start : start + size].long(), self.labels[start : start + size]


@dataclass
class Log:
    """What a training run has seen; stored with it and copied to the card."""

    train: list[tuple[int, float]] = field(default_factory=list)
    """(step, mean loss since the entry before)."""
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(step, loss of the averaged weights on held-out images)."""
    seconds: float = 0.0


class Trainer:
    """One run: network, averaged copy, optimiser, generator and log, saved and restored together."""

    def __init__(
        self, strategy: Strategy, config: NetworkConfig, recipe: Recipe, folder: Path, device: str = "cpu"
    ) -> None:
        self.strategy, self.config, self.recipe, self.folder = strategy, config, recipe, Path(folder)
        self.device = torch.device(device)
        self.network: Network = strategy.network(config)
        initialise(self.network, torch.Generator().manual_seed(recipe.seed))
        self.network.to(self.device)
        self.averaged = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=True
        )
        decayed = [p for p in self.network.parameters() if p.ndim >= 2]
        plain = [p for p in self.network.parameters() if p.ndim < 2]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": recipe.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=recipe.rate,
            betas=recipe.betas,
            fused=True,
        )
        self.generator = torch.Generator().manual_seed(recipe.seed + 1)
        # Dropout knows only the device's global generator: a run lends it a state of its own and stores it.
        self.dropout_state = torch.Generator(self.device).manual_seed(recipe.seed + 2).get_state()
        self.step, self.log = 0, Log()

    @property
    def path(self) -> Path:
        return self.folder / "run.pt"

    def save(self) -> None:
        """Write the whole state beside the old one, then take its name: a kill leaves one or the other."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "dropout_generator": self.dropout_state,
            "log": asdict(self.log),
            "recipe": json.dumps(asdict(self.recipe), sort_keys=True),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def resume(self) -> bool:
        """Take up a saved run of the same recipe; False where there is none."""
        if not self.path.is_file():
            return False
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        if state["recipe"] != json.dumps(asdict(self.recipe), sort_keys=True):
            raise ValueError(f"{self.path} was trained by another recipe: {state['recipe']}")
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.dropout_state = state["dropout_generator"].cpu()
        self.log = Log(**state["log"])
        return True

    def train_step(self, data: Codes) -> float:
        recipe = self.recipe
        tokens, labels = data.batch(recipe.batch, self.generator)
        labels = drop_labels(labels, self.config.classes, recipe.label_drop, self.generator)
        lesson = self.strategy.lesson(
            recipe.batch, self.config.grid, self.generator, self.step / recipe.steps
        )
        lesson = lesson.to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate_at(self.step)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.strategy.loss(self.network, tokens.to(self.device), labels.to(self.device), lesson)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        self.optimiser.step()
        self.averaged.update_parameters(self.network)
        self.step += 1
        return loss.item()

    def validate(self, data: Codes) -> float:
        """Loss of the averaged weights; the same lessons at every call, as at the end of training."""
        generator = torch.Generator().manual_seed(0)
        network = self.averaged.module.eval()
        total = 0.0
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
            for tokens, labels in data.slices(100):
                lesson = self.strategy.lesson(len(labels), self.config.grid, generator, 1.0).to(self.device)
                loss = self.strategy.loss(network, tokens.to(self.device), labels.to(self.device), lesson)
                total += loss.item() * len(labels)
        return total / data.codes.shape[1]

    @property
    def _dropout_generator(self) -> torch.Generator:
        if self.device.type == "cuda":
            return torch.cuda.default_generators[self.device.index or 0]
        return torch.default_generator

    def run(self, train: Codes, validation: Codes, until: int | None = None, quiet: bool = False) -> None:
        """Train to the end of the budget (or to step ``until``), saving every few minutes."""
        end = min(until or self.recipe.steps, self.recipe.steps)
        borrowed = self._dropout_generator.get_state()
        self._dropout_generator.set_state(self.dropout_state)
        try:
            self._train_to(end, train, validation, quiet)
        finally:
            self._dropout_generator.set_state(borrowed)

    def _train_to(self, end: int, train: Codes, validation: Codes, quiet: bool) -> None:
        self.network.train()
        losses: list[float] = []
        started = saved = time.monotonic()
        with tqdm(total=end, initial=self.step, desc=self.strategy.name, disable=quiet, mininterval=5) as bar:
            while self.step < end:
                losses.append(self.train_step(train))
                bar.update()
                now = time.monotonic()
                last = self.step == end
                if self.step % self.recipe.validate_every == 0 or last:
                    self.log.train.append((self.step, sum(losses) / len(losses)))
                    self.log.validation.append((self.step, self.validate(validation)))
                    bar.set_postfix(
                        loss=f"{self.log.train[-1][1]:.3f}", val=f"{self.log.validation[-1][1]:.3f}"
                    )
                    losses = []
                if now - saved > self.recipe.save_every_s or last:
                    self.log.seconds += now - started
                    started = saved = now
                    self.dropout_state = self._dropout_generator.get_state()
                    self.save()


def card(trainer: Trainer, data: dict[str, Any]) -> dict[str, Any]:
    """What a reader must know about trained weights: config, data, budget, curves."""
    return {
        "strategy": trainer.strategy.name,
        "options": asdict(trainer.strategy),
        "network": asdict(trainer.config),
        "parameters": parameter_count(trainer.network),
        "recipe": asdict(trainer.recipe),
        "steps_trained": trainer.step,
        "seconds": round(trainer.log.seconds),
        "train_loss": trainer.log.train,
        "validation_loss": trainer.log.validation,
        "torch": torch.__version__,
        **data,
    }
