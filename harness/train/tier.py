"""Trains the networks of the controlled tier, each to its end, those first that a table needs most.

Any number of processes may run this side by side on one folder of runs: a network is claimed by a lock that
dies with its process. All networks go to a mark before the first goes beyond it, so that an early table
compares networks of one budget.
"""

import dataclasses
import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.config import Dropout, NetworkConfig
from backbones.controlled import controlled_network
from backbones.tokenizers import load_tokenizer
from backbones.tokenizers.base import Tokenizer
from backbones.transformer import parameter_count
from backbones.weights import save_half, write_card
from harness.images.codes import Codes, encode_variants
from harness.images.data import Dataset, load_dataset
from harness.machine.environment import environment
from harness.machine.stopping import Stop, stop_at_next_step
from harness.train.mark_recipe import MarkRecipe
from harness.train.mark_trainer import MarkTrainer, TaughtImages
from harness.train.tokenizer import data_card
from harness.weights import zoo
from pardec.hashing import file_sha256, text_key
from strategies.decoding import registry

ORDER = ("raster", "lpd", "arpg", "maskgit", "nar", "par", "rar", "randar")
"""Where time is short."""


@dataclass(frozen=True)
class Material:
    """What every run of the tier is taught."""

    train: TaughtImages
    validation: TaughtImages
    config: NetworkConfig
    made_of: dict[str, str]
    card: dict[str, Any]
    """Of the data, for cards."""
    code_vectors: Tensor | None = None
    """Of the tokenizer, [V, c]."""
    tokenizer: Tokenizer | None = None
    size: str = ""
    """Of the networks: that of their trunk in ``backbones.controlled``."""


def material(
    data: str, folder: Path, runs: Path, tokenizer_name: str = "tokenizer", size: str = ""
) -> Material:
    """Codes of both splits by a tokenizer of a zoo folder, encoded once and kept in ``runs``."""
    tokenizer_file = zoo.shared_file(tokenizer_name, folder)
    tokenizer = load_tokenizer(tokenizer_file)
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    made_of = {
        "tokenizer_sha256": file_sha256(tokenizer_file),
        "train_sha256": train.sha256,
        "held_out_sha256": held_out.sha256,
    }
    config = controlled_network(tokenizer.codes, len(train.classes), tokenizer.grid, size)
    config = dataclasses.replace(config, trunk=config.trunk.with_dropout(Dropout()))
    taught, held = (
        _codes(split, tokenizer, made_of["tokenizer_sha256"], runs) for split in (train, held_out)
    )
    card, vectors = data_card(train, held_out), tokenizer.vectors()
    return Material(taught, held, config, made_of, card, vectors, tokenizer, size)


def _codes(dataset: Dataset, tokenizer: Tokenizer, tokenizer_sha256: str, runs: Path) -> TaughtImages:
    name = text_key(f"{tokenizer_sha256} {dataset.sha256} 1")
    path = runs / f"codes-{name}.npz"
    if not path.is_file():
        encode_variants(dataset, tokenizer, 1, seed=0).save(path)
    stored = Codes.load(path)
    return TaughtImages(torch.from_numpy(stored.codes[0]), torch.from_numpy(stored.labels).long())


def trainer_of(name: str, recipe: MarkRecipe, given: Material, runs: Path) -> MarkTrainer:
    """The run of one network, taken up where it was left."""
    stem = zoo.file_stem(name, recipe.seed, given.size)
    trainer = MarkTrainer(
        registry.get(name),
        given.config,
        recipe,
        runs / stem,
        given.made_of,
        code_vectors=given.code_vectors,
        tokenizer=given.tokenizer,
    )
    trainer.resume()
    return trainer


def train_tier(
    names: Sequence[str],
    recipe: MarkRecipe,
    given: Material,
    folder: Path,
    runs: Path,
    most: int | None = None,
) -> None:
    """Train every named network that no other process is training, level by level, to its end.

    most: a mark beyond which nothing is trained.
    """
    levels = [mark for mark in recipe.marks if most is None or mark <= most]
    for level in levels:
        for name in names:
            with (
                stop_at_next_step() as stop,
                claimed(runs / zoo.file_stem(name, recipe.seed, given.size)) as mine,
            ):
                if mine:
                    train_to_mark(trainer_of(name, recipe, given, runs), level, given, folder, stop)
                if stop.requested:  # as the last step was done: nothing is begun after it
                    raise SystemExit(f"stopped after {name}")


def train_to_mark(trainer: MarkTrainer, level: int, given: Material, folder: Path, stop: Stop) -> None:
    """Train to the mark ``level``, or to the end of learning where that comes first."""
    while True:
        mark = trainer.recipe.next_mark(trainer.reached.marks)
        if mark is None or mark > level:
            return
        trainer.train_to(
            mark,
            given.train,
            given.validation,
            lambda reached: store_mark(trainer, reached, given, folder),
            stop=stop,
        )


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may train the run in ``folder``; nobody else may until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def store_mark(trainer: MarkTrainer, mark: int, given: Material, folder: Path) -> None:
    """Write a mark's network as the zoo's, and once more under the mark's own name."""
    recipe, reached = trainer.recipe, trainer.reached
    stem = zoo.file_stem(trainer.strategy.name, recipe.seed, given.size)
    trunk = zoo.trunk_hash(trainer.config.trunk)
    header = {
        "strategy": trainer.strategy.name,
        "trunk_hash": trunk,
        "tokenizer_sha256": given.made_of["tokenizer_sha256"],
    }
    path = folder / f"{stem}.safetensors"
    sha256 = save_half(trainer.network, path, header)
    card: dict[str, Any] = {
        "strategy": trainer.strategy.name,
        "options": asdict(trainer.strategy),
        "network": asdict(trainer.config),
        "parameters": parameter_count(trainer.network),
        "trunk_hash": trunk,
        "recipe": asdict(recipe),
        "run_key": text_key(json.dumps(trainer.content, sort_keys=True)),
        "mark": mark,
        "images_trained": recipe.end_of(mark) * recipe.batch,
        "steps_trained": recipe.end_of(mark),
        "images_computed": reached.images,
        "seconds": round(reached.seconds),
        "near_certain": trainer.near_certain(given.validation),
        "marks": [
            {"mark": one, "images": recipe.end_of(one) * recipe.batch, "validation_loss": loss}
            for one, loss in sorted(reached.marks.items())
        ],
        "train_loss": reached.curve,
        "decay_loss": reached.branches.get(mark, []),
        "tokenizer_sha256": given.made_of["tokenizer_sha256"],
        "trained_on": given.card,
        "weights": {
            "file": path.name,
            "sha256": sha256,
            "bytes": path.stat().st_size,
            "precision": "float16",
        },
        "environment": environment(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"pardec train {trainer.strategy.name} --data fashion --seed {recipe.seed}"
        + (f" --size {given.size}" if given.size else ""),
    }
    write_card(path.with_suffix(".json"), card)
    kept = folder / zoo.MARKS / f"{stem}-{mark}x.safetensors"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(path, kept)
    card["weights"]["file"] = kept.name
    write_card(kept.with_suffix(".json"), card)
