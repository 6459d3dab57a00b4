"""Budgets of training: the common one of the controlled tier, and the papers' own, read from recipes.toml."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from backbones.config import Dropout
from backbones.first_weights import ALIKE, FirstWeights
from harness.train.rates import rate_of_step
from pardec.errors import unknown

RECIPES = Path(__file__).parent / "recipes.toml"
COMMON = "common"
STAIRS = (1 / 2, 2 / 3, 5 / 6)
"""Shares of the steps."""
HARMLESS = ("save_every_s", "log_every")
"""Settings that change no weight, so that a run may be resumed with others."""


@dataclass(frozen=True)
class Recipe:
    """A budget, by default that of a network on a user's folder of images. Rates are per step; ``steps`` are
    optimiser steps."""

    steps: int = 24_000
    batch: int = 16
    """Images of a step, over all processes."""
    rate: float = 1.2e-3
    warmup_steps: int = 300
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    """On tensors of two or more dimensions."""
    clip_norm: float = 1.0
    label_drop: float = 0.1
    averaging: float = 0.999
    """Decay of the exponential moving average of the weights, which is what is kept; 0: no average."""
    seed: int = 0
    validate_every: int = 1000
    save_every_s: float = 120.0
    hold_steps: int = 0
    """Steps at the full rate between warm-up and decay."""
    decay: Literal["cosine", "stairs", "none"] = "cosine"
    least_rate: float = 0.0
    """Where the cosine ends; ``stairs`` go down to a fifth at each of ``STAIRS``."""
    undecayed: tuple[str, ...] = ()
    """Parameters whose name holds one of these words get no weight decay."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of products under autocast; weights and optimiser state are float32."""
    streams: Literal["running", "by_step"] = "running"
    """``running``: one random stream goes through the run. ``by_step``: every draw is a function of (seed,
    step, row), but that of dropout of (seed, step, first row of a micro-batch): the number of processes
    changes nothing but dropout and rounding."""
    log_every: int = 1000
    """Steps whose mean loss makes one entry of the log."""
    first: FirstWeights = ALIKE

    def rate_at(self, step: int) -> float:
        """By ``rates``; without decay, and before stairs, the least rate is the full one."""
        least = self.least_rate if self.decay == "cosine" else self.rate
        rate = rate_of_step(step, self.rate, self.steps, self.warmup_steps, self.hold_steps, least)
        stairs = sum(step >= share * self.steps for share in STAIRS) if self.decay == "stairs" else 0
        return rate * 0.2**stairs

    def binding(self) -> dict[str, Any]:
        """The settings that a run may not change."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in HARMLESS}


@dataclass(frozen=True)
class RecipePreset:
    """A recipe in epochs, as papers state them."""

    name: str
    source: str
    epochs: float
    batch: int
    rate: float
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float
    label_drop: float
    warmup_epochs: float = 0.0
    hold_epochs: float = 0.0
    decay: Literal["cosine", "stairs", "none"] = "cosine"
    least_rate: float = 0.0
    undecayed: tuple[str, ...] = ()
    dropout: Mapping[str, float] = field(default_factory=dict)
    departure: str = ""
    first: FirstWeights = ALIKE

    def recipe(
        self, images: int, batch: int | None = None, steps: int | None = None, **changes: Any
    ) -> Recipe:
        """For a data set of ``images``. Fewer or more ``steps`` shorten or stretch warm-up and hold alike."""
        batch = batch or self.batch
        steps_of_epoch = images / batch
        steps = steps or max(1, round(self.epochs * steps_of_epoch))
        stretch = steps / (self.epochs * steps_of_epoch)
        made = Recipe(
            steps=steps,
            batch=batch,
            rate=self.rate * batch / self.batch,
            warmup_steps=round(self.warmup_epochs * steps_of_epoch * stretch),
            hold_steps=round(self.hold_epochs * steps_of_epoch * stretch),
            betas=self.betas,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            label_drop=self.label_drop,
            averaging=0.0,
            decay=self.decay,
            least_rate=self.least_rate,
            undecayed=self.undecayed,
            streams="by_step",
            first=self.first,
        )
        return dataclasses.replace(made, **changes)

    def dropout_of(self, trunk: Dropout) -> Dropout:
        return dataclasses.replace(trunk, **self.dropout)


@lru_cache(maxsize=1)
def presets() -> dict[str, RecipePreset]:
    """``common`` and a recipe per paper, by the name of its strategy."""
    with RECIPES.open("rb") as file:
        content = tomllib.load(file)
    return {name: RecipePreset(name=name, **_typed(body)) for name, body in content.items()}


def _typed(body: dict[str, Any]) -> dict[str, Any]:
    """Lists as tuples, the table of first weights as such."""
    typed = {key: tuple(value) if isinstance(value, list) else value for key, value in body.items()}
    if "first" in body:
        typed["first"] = FirstWeights(**_typed(body["first"]))
    return typed


def preset(name: str) -> RecipePreset:
    """UserError for an unknown name."""
    if name not in presets():
        raise unknown("recipe", name, presets())
    return presets()[name]
