"""Trains any strategy's network on image codes: seeded, resumable at any instant, under one budget.

What differs between methods (orders, group sizes, annealing) comes from the strategy's lesson; data, steps,
batch, optimiser, schedule, dropout, label drop and averaging are the same for all. One process trains, or
several that each learn from their rows of a step's batch.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from backbones.config import NetworkConfig
from backbones.networks import Networks
from backbones.transformer import Network, parameter_count
from harness.images.codes import Codes, generator_of
from harness.machine.distributed import Group
from harness.train.divergence import Watch
from harness.train.learner import Learner, SharedLearner, forward_flops, new_network
from harness.train.log import Log, LogFile, Speed, Window
from harness.train.mark_recipe import plain
from harness.train.recipes import Recipe
from harness.train.saved_run import read_run
from pardec.errors import UserError
from pardec.files import write_whole
from strategies.decoding.base import Lesson, Strategy, drop_labels

ALONE = Group()
VALIDATION_BATCH = 100
LESSONS, DROPOUT = 1, 2
"""Purposes of random streams."""


class Examples(Protocol):
    """Codes and labels to learn from."""

    @property
    def images(self) -> int: ...

    @property
    def labels(self) -> Tensor:
        """int64 [n]."""

    def choose(self, size: int, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images and variants [B] of a step."""

    def tokens(self, images: Tensor, variants: Tensor) -> Tensor:
        """int64 [B, N]; variant 0 is what validation sees."""


@dataclass(frozen=True)
class CodesInMemory:
    """Image codes [variants, n, N] (variant 0 is the plain image) and labels [n], in memory."""

    codes: Tensor
    labels: Tensor

    @classmethod
    def from_npz(cls, path: Path) -> "CodesInMemory":
        stored = Codes.load(path)
        return cls(torch.from_numpy(stored.codes), torch.from_numpy(stored.labels).long())

    @property
    def images(self) -> int:
        return self.codes.shape[1]

    def choose(self, size: int, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random images, each in a random variant."""
        images = torch.randint(self.images, (size,), generator=generator)
        return images, torch.randint(len(self.codes), (size,), generator=generator)

    def tokens(self, images: Tensor, variants: Tensor) -> Tensor:
        return self.codes[variants, images].long()


@dataclass(frozen=True)
class TrainingBatch:
    """All rows of a step, whichever process learns from them: images, variants, labels [B] and lesson."""

    images: Tensor
    variants: Tensor
    labels: Tensor
    lesson: Lesson


class Trainer:
    """One run: network, averaged copy, optimiser, generator and log, saved and restored together."""

    def __init__(
        self,
        strategy: Strategy,
        config: NetworkConfig,
        recipe: Recipe,
        folder: Path,
        device: str = "cpu",
        group: Group = ALONE,
        accumulation: int = 1,
        compiled: bool = False,
        code_vectors: Tensor | None = None,
        tokenizer: nn.Module | None = None,
        made_of: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        """group: the processes that share a step. accumulation: micro-batches of a process and step.
        code_vectors: of the tokenizer, float [V, c], for methods that learn from them.
        tokenizer: for networks that read it. made_of: hashes of tokenizer and data, which bind the run.

        UserError where the batch can't be dealt evenly, or vectors are needed and missing.
        """
        self.strategy, self.config, self.recipe, self.folder = strategy, config, recipe, Path(folder)
        remedy = "choose another --runs and a smaller --rate (with --trunk) or another --seed"
        self.watch = Watch(self.folder, remedy)
        self.content = plain(
            {
                "recipe": recipe.binding(),
                "network": asdict(config),
                "strategy": {"name": strategy.name, **asdict(strategy)},
                **made_of,
            }
        )
        self.device, self.group = torch.device(device), group
        self.parts = parts_of(recipe.batch, group, accumulation)
        self.network: Network | Networks = new_network(
            strategy, config, recipe.seed, code_vectors, tokenizer, recipe.first
        )
        self.network.to(self.device)
        self.averaged: AveragedModel | None = None
        if recipe.averaging:
            self.averaged = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging))
        self.optimiser = _optimiser(self.network, recipe)
        self.shared = SharedLearner(Learner(strategy, self.network), group, self.device, compiled)
        self.generator = torch.Generator().manual_seed(recipe.seed + 1)
        # Dropout knows only the device's global generator: a run lends it a state of its own and stores it.
        self.dropout_state = torch.Generator(self.device).manual_seed(recipe.seed + 2).get_state()
        self.step, self.log, self.window = 0, Log(), Window(self.device)

    @property
    def kept(self) -> nn.Module:
        """The network whose weights are validated and stored: the average, where there is one."""
        return self.network if self.averaged is None else self.averaged.module

    @property
    def path(self) -> Path:
        return self.folder / "run.pt"

    def save(self) -> None:
        """Write the whole state beside the old one, then take its name: a kill leaves one or the other."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "dropout_generator": self.dropout_state,
            "window": self.window.sums,
            "log": asdict(self.log),
            "content": json.dumps(self.content, sort_keys=True),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, lambda file: torch.save(state, file))

    def resume(self) -> bool:
        """Take up the saved state; False where there is none, UserError for one made of something else."""
        state = read_run(self.path, self.content, self.device)
        if state is None:
            return False
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"].cpu())
        self.dropout_state = state["dropout_generator"].cpu()
        self.window.sums.copy_(state.get("window", torch.zeros(2)))
        self.log = Log(**state["log"])
        return True

    def draw(self, data: Examples) -> TrainingBatch:
        """What the next step teaches: the same in every process."""
        recipe, generator = self.recipe, self.generator
        if recipe.streams == "by_step":
            generator = generator_of(recipe.seed, LESSONS, self.step)
        images, variants = data.choose(recipe.batch, self.step, generator)
        labels = drop_labels(data.labels[images], self.config.classes, recipe.label_drop, generator)
        lesson = self.strategy.lesson(recipe.batch, self.config.grid, generator, self.step / recipe.steps)
        return TrainingBatch(images, variants, labels, lesson)

    def train_step(self, data: Examples) -> Tensor:
        """One optimiser step; returns the norm of the gradient before clipping."""
        recipe, batch = self.recipe, self.draw(data)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.rate_at(self.step)
        self.optimiser.zero_grad()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for rows in self.parts:
            if recipe.streams == "by_step":
                seed = generator_of(recipe.seed, DROPOUT, self.step, rows.start).initial_seed()
                self._dropout_generator.manual_seed(seed)
            tokens = data.tokens(batch.images[rows], batch.variants[rows])
            with self.shared.accumulating(rows is not self.parts[-1]):
                loss = self._loss(tokens, batch.labels[rows], batch.lesson.rows(rows)) / len(self.parts)
                loss.backward()
            total += loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        self.optimiser.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        self.step += 1
        self.window.add(self.shared.total(total) / self.group.size)
        return norm

    def _loss(self, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        with self._autocast():
            return self.shared.loss(tokens.to(self.device), labels.to(self.device), lesson.to(self.device))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, self.recipe.precision == "bfloat16")

    def validate(self, data: Examples) -> float:
        """Loss of the kept weights; the same lessons at every call, as at the end of training."""
        generator = torch.Generator().manual_seed(0)
        network = self.kept.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.no_grad(), self._autocast():
            for number, images in enumerate(torch.arange(data.images).split(VALIDATION_BATCH)):
                lesson = self.strategy.lesson(len(images), self.config.grid, generator, 1.0).to(self.device)
                if number % self.group.size != self.group.rank:
                    continue
                tokens, labels = data.tokens(images, torch.zeros_like(images)), data.labels[images]
                loss = self.strategy.loss(network, tokens.to(self.device), labels.to(self.device), lesson)
                total += loss.double() * len(images)
        self.network.train()
        return self.shared.total(total).item() / data.images

    @property
    def _dropout_generator(self) -> torch.Generator:
        if self.device.type == "cuda":
            return torch.cuda.default_generators[self.device.index or 0]
        return torch.default_generator

    @contextmanager
    def _own_dropout(self) -> Iterator[None]:
        borrowed = self._dropout_generator.get_state()
        self._dropout_generator.set_state(self.dropout_state)
        try:
            yield
        finally:
            self._dropout_generator.set_state(borrowed)

    def run(
        self,
        train: Examples,
        validation: Examples | None,
        until: int | None = None,
        quiet: bool = False,
        peak_flops_per_s: float | None = None,
    ) -> None:
        """Train to the end of the budget (or to step ``until``), saving every few minutes.

        validation: None trains without. peak_flops_per_s: of one process's device, for the log's MFU.
        """
        end = min(until or self.recipe.steps, self.recipe.steps)
        peak = None if peak_flops_per_s is None else peak_flops_per_s * self.group.size
        flops = forward_flops(self.strategy, self.network, self.config) if self.group.is_first else 0
        file = LogFile(self.folder / "log.jsonl")
        if self.group.is_first:
            file.cut(self.step)
            file.append(kind="start", step=self.step, processes=self.group.size, parts=len(self.parts))
        quiet = quiet or not self.group.is_first
        bar = tqdm(total=end, initial=self.step, desc=self.strategy.name, disable=quiet, mininterval=5)
        with self._own_dropout(), bar:
            self._train_to(end, train, validation, bar, file, Speed(flops, peak))
        self.group.wait()

    def _train_to(
        self,
        end: int,
        train: Examples,
        validation: Examples | None,
        bar: "tqdm[NoReturn]",
        file: LogFile,
        speed: Speed,
    ) -> None:
        self.network.train()
        saved = time.monotonic()
        while self.step < end:
            norm = self.train_step(train)
            speed.add(self.recipe.batch)
            bar.update()
            last = self.step == end
            validating = self.step % self.recipe.validate_every == 0 or last
            if validating or self.step % self.recipe.log_every == 0:
                loss = self.window.take()  # waits for the device
                speed.pause()
                self._report(file, train, loss, norm.item(), speed)
                if validating:
                    self._validated(file, loss, validation, bar)
                speed.start()
            now = time.monotonic()
            if now - saved > self.recipe.save_every_s or last:
                self.log.seconds += now - saved
                saved = now
                self.dropout_state = self._dropout_generator.get_state()
                self.watch.weights(self.step, self.network)  # in every process, or some would wait for ever
                if self.group.is_first:
                    if self.device.type == "cuda":
                        torch.cuda.synchronize(self.device)
                    speed.pause()
                    self.save()
                    speed.start()

    def _report(self, file: LogFile, train: Examples, loss: float, norm: float, speed: Speed) -> None:
        """One entry of the log; UserError where training has come to nothing."""
        self.watch.loss(self.step, loss)
        if self.group.is_first:
            file.append(
                kind="train",
                step=self.step,
                epoch=self.step * self.recipe.batch / train.images,
                loss=loss,
                rate=self.recipe.rate_at(self.step - 1),
                gradient_norm=norm,
                **speed.take(),
            )

    def _validated(
        self, file: LogFile, loss: float, validation: Examples | None, bar: "tqdm[NoReturn]"
    ) -> None:
        self.log.train.append((self.step, loss))
        shown = {"loss": f"{loss:.3f}"}
        if validation is not None:
            self.log.validation.append((self.step, self.validate(validation)))
            shown["val"] = f"{self.log.validation[-1][1]:.3f}"
            if self.group.is_first:
                file.append(kind="validation", step=self.step, loss=self.log.validation[-1][1])
        bar.set_postfix(shown)


def parts_of(batch: int, group: Group, accumulation: int) -> tuple[slice, ...]:
    """Rows of a step's batch that this process learns from, a slice per micro-batch."""
    if accumulation < 1 or batch % (group.size * accumulation):
        raise UserError(
            f"batch {batch} can't be dealt evenly to {group.size} processes of {accumulation} micro-batches"
        )
    micro = batch // (group.size * accumulation)
    starts = range(group.rank * accumulation * micro, (group.rank + 1) * accumulation * micro, micro)
    return tuple(slice(start, start + micro) for start in starts)


def _optimiser(network: Network | Networks, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW without decay of vectors and of the names that the recipe excepts."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        excepted = parameter.ndim < 2 or any(word in name for word in recipe.undecayed)
        (plain if excepted else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=recipe.betas, fused=True)


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
