"""Trains one network of the controlled tier from mark to mark; stopped at any instant, it goes on as if not.

Every draw is a function of (seed, step), so a saved state needs no generator: weights, momenta, step, and
what was reached so far.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.config import NetworkConfig
from backbones.networks import Networks
from backbones.transformer import Network
from backbones.weights import as_stored
from harness.images.codes import generator_of
from harness.machine.precision import taught_products
from harness.machine.stopping import Stop
from harness.subject.compiled import compile_taught
from harness.train.divergence import Watch
from harness.train.learner import new_network
from harness.train.mark_recipe import MarkRecipe, goes_on, plain
from harness.train.saved_run import read_run, set_aside
from pardec.errors import UserError
from pardec.files import write_whole
from strategies.decoding.base import Strategy, drop_labels

SAVE_EVERY_S = 180.0
CURVE_STEPS = 125
"""Steps whose mean loss makes a point of the curve."""
VALIDATION_BATCH = 100
CERTAIN, CERTAIN_IMAGES = 0.99, 200
ORDER, LESSON = 1, 2
"""Purposes of random streams."""


@dataclass(frozen=True)
class TaughtImages:
    """Codes of a split in memory: uint8 or int64 [n, N], labels int64 [n]."""

    codes: Tensor
    labels: Tensor


@dataclass
class Reached:
    """What a run has seen; stored with it and copied to the cards."""

    marks: dict[int, float] = field(default_factory=dict)
    """Validation loss of each mark's network, nats a token."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(images, mean loss since the point before)."""
    seconds: float = 0.0
    """By the clock, waits for a core included."""


class MarkTrainer:
    """One network, its two optimisers and its account."""

    def __init__(
        self,
        strategy: Strategy,
        config: NetworkConfig,
        recipe: MarkRecipe,
        folder: Path,
        made_of: dict[str, str],
        compiled: bool | None = None,
        code_vectors: Tensor | None = None,
        tokenizer: nn.Module | None = None,
    ) -> None:
        """folder: of the saved states. made_of: hashes of tokenizer and data, which bind the run. compiled:
        None compiles the blocks where that can be done; results differ by rounding only. code_vectors: of
        the tokenizer, float [V, c], for methods that learn from them. tokenizer: for networks that read it.
        """
        self.strategy, self.config, self.recipe, self.folder = strategy, config, recipe, Path(folder)
        remedy = f"look into the loss of strategy '{strategy.name}', or train with another --seed"
        self.watch = Watch(self.folder, remedy)
        self.content = plain(
            {
                "recipe": asdict(recipe),
                "network": asdict(config),
                "strategy": {"name": strategy.name, **asdict(strategy)},
                **made_of,
            }
        )
        self.made_of, self.compiled = made_of, compiled
        self.network: Network | Networks = new_network(strategy, config, recipe.seed, code_vectors, tokenizer)
        self.optimisers = optimisers_of(self.network, recipe)
        self.step, self.reached = 0, Reached()
        self.anew = False
        """Whether the run was begun anew beside marks of an earlier one, which are none of its own."""
        self.sums = [0.0, 0]
        """Of losses since the last point of the curve, and of steps."""
        self.told = (0, 0.0)
        """Images and seconds of training when its pace was last told."""

    # States -------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """Where the run is."""
        return self.folder / "run.pt"

    def save(self) -> None:
        """Replace the state before; UserError where that one is worth more, as ``watch.weights``."""
        self.watch.weights(self.step, self.network)
        state = {
            "content": json.dumps(self.content, sort_keys=True),
            "step": self.step,
            "sums": self.sums,
            "reached": asdict(self.reached),
            "anew": self.anew,
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, lambda file: torch.save(state, file))

    def resume(self) -> bool:
        """Take up the saved state; False where there is none, UserError for one of another recipe."""
        state = read_run(self.path, self.content, "cpu")
        if state is None:
            return False
        try:
            self.step, self.sums, self.reached = state["step"], state["sums"], Reached(**state["reached"])
        except (KeyError, TypeError):
            raise UserError(f"'{self.path}' is a run of an older pardec; choose another --runs") from None
        self.anew = state.get("anew", False)
        self.network.load_state_dict(state["network"])
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        return True

    def begin_anew(self) -> None:
        """Make this the folder's run, at its first step, and keep the one that is there beside it."""
        set_aside(self.path)
        self.anew = True
        self.save()

    def is_of(self, stored: Mapping[str, Any]) -> bool:
        """Whether what ``stored`` tells of a run is true of this one."""
        return goes_on(stored, self.content)

    def begin_leg(self, weights: Mapping[str, Tensor], reached: Reached) -> None:
        """Go on from the weights of the last mark reached, the same from memory and from disk."""
        self.network.load_state_dict({name: as_stored(tensor) for name, tensor in weights.items()})
        self.optimisers = optimisers_of(self.network, self.recipe)
        self.step, self.reached, self.sums = self.recipe.end_of(max(reached.marks)), reached, [0.0, 0]

    # Learning -----------------------------------------------------------------------------------------

    def train_step(self, data: TaughtImages) -> Tensor:
        """One step of both optimisers; returns the mean loss."""
        recipe, step = self.recipe, self.step
        rows = rows_of(step, recipe, len(data.labels))
        generator = generator_of(recipe.seed, LESSON, step)
        labels = drop_labels(data.labels[rows], self.config.classes, recipe.label_drop, generator)
        lesson = self.strategy.lesson(recipe.batch, self.config.grid, generator, recipe.progress(step))
        for optimiser, rate in zip(self.optimisers, (recipe.matrix_rate, recipe.rate), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * recipe.rate_share(step)
            optimiser.zero_grad()
        with taught_products():
            loss = self.strategy.loss(self.network, data.codes[rows].long(), labels, lesson)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm, foreach=True)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        return loss.detach()

    @torch.no_grad()
    def validate(self, data: TaughtImages) -> float:
        """Mean loss in float32; the same lessons at every call, as at the end of training."""
        generator = torch.Generator().manual_seed(0)
        self.network.eval()
        total, count = 0.0, min(self.recipe.validation_images, len(data.labels))
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            for rows in torch.arange(count).split(VALIDATION_BATCH):
                lesson = self.strategy.lesson(len(rows), self.config.grid, generator, 1.0)
                loss = self.strategy.loss(self.network, data.codes[rows].long(), data.labels[rows], lesson)
                total += loss.item() * len(rows)
        self.network.train()
        return total / count

    @torch.no_grad()
    def near_certain(self, data: TaughtImages) -> float:
        """Share of taught predictions, given all that the lesson shows, whose likeliest code has at least the
        probability ``CERTAIN``: what such codes cost, every speculative decoder saves."""
        rows = torch.arange(min(CERTAIN_IMAGES, len(data.labels)))
        lesson = self.strategy.lesson(len(rows), self.config.grid, torch.Generator().manual_seed(0), 1.0)
        self.network.eval()
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            logits = self.strategy.taught_logits(
                self.network, data.codes[rows].long(), data.labels[rows], lesson
            )
        self.network.train()
        return (logits.softmax(-1).amax(-1) >= CERTAIN).float().mean().item()

    def train_to(
        self,
        mark: int,
        train: TaughtImages,
        validation: TaughtImages,
        finished: Callable[[int], None],
        say: Callable[[str], None] = print,
        stop: Stop | None = None,
    ) -> None:
        """Train to the end of ``mark``, the next one, and make ready for what comes after it.

        finished: called with the mark once its network stands, before the state is saved as past it. stop:
        when it is requested, the state is saved and SystemExit raised.
        """
        torch.set_flush_denormal(True)
        if self.compiled is None:
            self.compiled = compile_taught(self.network)
        self.network.train()
        self.told = (self.step * self.recipe.batch, self.reached.seconds)
        saved = started = time.monotonic()
        while self.step < self.recipe.end_of(mark):
            loss = self.train_step(train).item()
            now = time.monotonic()
            self.reached.seconds += now - started
            started = now
            self._note(loss, say)
            if now - saved > SAVE_EVERY_S:
                self.save()
                saved = now
            if stop is not None and stop.requested:
                self.save()
                raise SystemExit(f"{self.strategy.name}: stopped at {self.step * self.recipe.batch} images")
        self.watch.weights(self.step, self.network)
        self.reached.marks[mark] = self.validate(validation)
        say(f"{self.strategy.name}: {mark}x, validation loss {self.reached.marks[mark]:.4f}")
        finished(mark)
        self.begin_leg(self.network.state_dict(), self.reached)
        self.save()

    def _note(self, loss: float, say: Callable[[str], None]) -> None:
        """Add a step to the account; UserError where training has come to nothing."""
        self.sums = [self.sums[0] + loss, self.sums[1] + 1]
        if self.step % CURVE_STEPS:
            return
        mean, images = self.sums[0] / self.sums[1], self.step * self.recipe.batch
        self.watch.loss(self.step, mean)
        self.reached.curve.append((images, mean))
        self.sums = [0.0, 0]
        before, self.told = self.told, (images, self.reached.seconds)
        pace = (images - before[0]) / max(self.reached.seconds - before[1], 1e-9)
        say(f"{self.strategy.name}: {images} images, loss {mean:.4f}, {pace:.1f} images/s")


def rows_of(step: int, recipe: MarkRecipe, images: int) -> Tensor:
    """Images [B] of a step: shuffled passes over the split, a short last batch left out."""
    steps = images // recipe.batch
    if not steps:
        raise UserError(f"batch {recipe.batch} is larger than the training split of {images} images")
    first = step % steps * recipe.batch
    return _order(images, recipe.seed, step // steps)[first : first + recipe.batch]


@lru_cache(maxsize=2)
def _order(images: int, seed: int, number: int) -> Tensor:
    """The order of one pass over the images."""
    return torch.randperm(images, generator=generator_of(seed, ORDER, number))


def optimisers_of(
    network: Network | Networks, recipe: MarkRecipe
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else, vectors without decay."""
    matrices: list[Tensor] = []
    tables: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, parameter in network.named_parameters():
        kind = matrices if ".blocks." in name else tables
        (vectors if parameter.ndim < 2 else kind).append(parameter)
    muon = torch.optim.Muon(
        matrices,
        lr=recipe.matrix_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    groups = [
        {"params": tables, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return muon, torch.optim.AdamW(groups, lr=recipe.rate, betas=recipe.betas, fused=True)
