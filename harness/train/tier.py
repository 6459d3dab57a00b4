"""Trains the networks of the controlled tier, each to its end, those first that a table needs most.

Any number of processes may run this side by side on one folder of runs: a network is claimed by a lock that
dies with its process. A process takes all its networks to a mark before the first goes beyond it, and passes
over those that others train. Whatever was trained, the zoo's own networks are of one budget (``promote``).
"""

import dataclasses
import fcntl
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
from backbones.weights import load_half, save_half, write_card
from harness.images.codes import Codes, encode_variants
from harness.images.data import Dataset, check_size, load_dataset
from harness.machine.environment import environment
from harness.machine.precision import product_type, type_name
from harness.machine.stopping import Stop, stop_at_next_step
from harness.train.mark_recipe import MarkRecipe
from harness.train.mark_trainer import MarkTrainer, Reached, TaughtImages
from harness.train.tokenizer import data_card
from harness.weights import zoo
from pardec.errors import UserError, one_line
from pardec.files import write_whole
from pardec.hashing import file_sha256, text_key
from strategies.decoding import registry
from strategies.decoding.meter import by_role

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
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of their strategies, other than by default."""

    def stem(self, name: str, recipe: MarkRecipe) -> str:
        """What a strategy's network is called in the zoo."""
        return zoo.file_stem(name, recipe.seed, self.size, self.options)


def material(
    data: str,
    folder: Path,
    runs: Path,
    tokenizer_name: str = "tokenizer",
    size: str = "",
    options: Mapping[str, Any] | None = None,
) -> Material:
    """Codes of both splits by a tokenizer of a zoo folder, encoded once and kept in ``runs``."""
    tokenizer_file = zoo.shared_file(tokenizer_name, folder)
    tokenizer = load_tokenizer(tokenizer_file)
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    check_size(train, tokenizer.image_size, f"tokenizer '{tokenizer_file}'")
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
    return Material(taught, held, config, made_of, card, vectors, tokenizer, size, options or {})


def _codes(dataset: Dataset, tokenizer: Tokenizer, tokenizer_sha256: str, runs: Path) -> TaughtImages:
    name = text_key(f"{tokenizer_sha256} {dataset.sha256} 1")
    path = runs / f"codes-{name}.npz"
    if not path.is_file():
        encode_variants(dataset, tokenizer, 1, seed=0).save(path)
    stored = Codes.load(path)
    return TaughtImages(torch.from_numpy(stored.codes[0]), torch.from_numpy(stored.labels).long())


def trainer_of(
    name: str, recipe: MarkRecipe, given: Material, runs: Path, folder: Path | None = None
) -> MarkTrainer:
    """The run of one network, taken up where it was left: in ``runs``, or at the last mark of a zoo where
    that is further on. A run that was begun anew has nothing to do with the marks of a zoo."""
    trainer = _at_first_step(name, recipe, given, runs)
    trainer.resume()
    if folder is not None and not trainer.anew:
        with _alone_in(folder):
            for last in zoo.marks(given.stem(name, recipe), folder)[-1:]:
                _take_up(trainer, zoo.read_card(last, folder))
    return trainer


def _at_first_step(name: str, recipe: MarkRecipe, given: Material, runs: Path) -> MarkTrainer:
    return MarkTrainer(
        registry.get(name, **given.options),
        given.config,
        recipe,
        runs / given.stem(name, recipe),
        given.made_of,
        code_vectors=given.code_vectors,
        tokenizer=given.tokenizer,
    )


def begin_anew(names: Sequence[str], recipe: MarkRecipe, given: Material, runs: Path) -> None:
    """Set the runs of these networks aside and begin others, but for those that another process trains."""
    for name in names:
        stem = given.stem(name, recipe)
        with claimed(runs / stem) as mine:
            if mine:
                _at_first_step(name, recipe, given, runs).begin_anew()
            else:
                print(f"{stem}: not begun anew, another process is training it")


def _take_up(trainer: MarkTrainer, card: zoo.Card) -> None:
    """Begin the leg after a mark, if the run isn't there yet; UserError for another run's mark."""
    try:
        told, made_of = card.content, _made_of(card)
        reached = Reached(
            {one["mark"]: one["validation_loss"] for one in told["marks"]},
            [(images, loss) for images, loss in told["train_loss"]],
            float(told["seconds"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"card of '{card.weights}': not of a mark: {one_line(error)[:120]}") from None
    if not trainer.is_of(made_of):
        raise UserError(
            f"'{card.weights}' is of another recipe, trunk, tokenizer or data set; --again begins without it"
        )
    if trainer.recipe.end_of(max(reached.marks)) > trainer.step:
        trainer.begin_leg(load_half(card.weights).tensors, reached)


def _made_of(card: zoo.Card) -> dict[str, Any]:
    """What a run is bound by, as the card of one of its marks tells it."""
    told = card.content
    splits = {name: told["trained_on"].get(name) for name in ("train", "held-out")}
    return {
        "recipe": told["recipe"],
        "network": told["network"],
        "strategy": {"name": card.strategy, **card.options},
        "tokenizer_sha256": told["tokenizer_sha256"],
        **{f"{name.replace('-', '_')}_sha256": split["sha256"] for name, split in splits.items() if split},
    }


def train_tier(
    names: Sequence[str],
    recipe: MarkRecipe,
    given: Material,
    folder: Path,
    runs: Path,
    most: int | None = None,
    again: bool = False,
) -> None:
    """Train every named network that no other process is training, level by level, to its end.

    folder: a zoo; runs go on from the last mark that it holds. most: a mark beyond which nothing is trained.
    again: first begin all of them anew.
    """
    promote(folder)  # where a process was killed at it
    if again:
        begin_anew(names, recipe, given, runs)
    levels = [mark for mark in recipe.marks if most is None or mark <= most]
    for level in levels:
        for name in names:
            with (
                stop_at_next_step() as stop,
                claimed(runs / given.stem(name, recipe)) as mine,
            ):
                if mine:
                    train_to_mark(trainer_of(name, recipe, given, runs, folder), level, given, folder, stop)
                if stop.requested:  # as the last step was done: nothing is begun after it
                    raise SystemExit(f"stopped after {name}")


def train_to_mark(trainer: MarkTrainer, level: int, given: Material, folder: Path, stop: Stop) -> None:
    """Train to the mark ``level``, or to the end of learning where that comes first."""
    stem = given.stem(trainer.strategy.name, trainer.recipe)
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
        promote(folder)
        for name in zoo.marks(stem, folder):
            if zoo.read_card(name, folder).mark == mark:
                print(f"{stem}: {mark}x is {name} in {folder}")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other process adds or moves networks of a zoo folder until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    """Write a mark's network to the zoo.

    It becomes the zoo's own where that is missing, of the same mark or of none; else it stands among the
    marks. So a run that was begun anew replaces the networks of an earlier one mark by mark, and none of a
    mark that it hasn't reached.
    """
    near_certain = trainer.near_certain(given.validation)
    with _alone_in(folder):
        stem = given.stem(trainer.strategy.name, trainer.recipe)
        own = zoo.read_card(stem, folder).mark if stem in zoo.names(folder) else None
        name = stem if own in (None, mark) else f"{zoo.MARKS}/{stem}-{mark}x"
        path = folder / f"{name}.safetensors"
        _write(trainer, mark, given, path, near_certain)


def _write(trainer: MarkTrainer, mark: int, given: Material, path: Path, near_certain: float) -> None:
    """Weights, then card."""
    recipe, reached = trainer.recipe, trainer.reached
    trunk = zoo.trunk_hash(trainer.config.trunk)
    header = {
        "strategy": trainer.strategy.name,
        "options": asdict(trainer.strategy),
        "network": asdict(trainer.config),
        "trunk_hash": trunk,
        "tokenizer_sha256": given.made_of["tokenizer_sha256"],
    }
    sha256 = save_half(trainer.network, path, header)
    card: dict[str, Any] = {
        "strategy": trainer.strategy.name,
        "options": asdict(trainer.strategy),
        "network": asdict(trainer.config),
        "parameters": parameter_count(trainer.network),
        "networks": len(by_role(trainer.network)),
        "trunk_hash": trunk,
        "recipe": asdict(recipe),
        "run_key": text_key(json.dumps(trainer.content, sort_keys=True)),
        "mark": mark,
        "images_trained": recipe.end_of(mark) * recipe.batch,
        "steps_trained": recipe.end_of(mark),
        "seconds": round(reached.seconds),
        "products": type_name(product_type()),
        "near_certain": near_certain,
        "marks": [
            {"mark": one, "images": recipe.end_of(one) * recipe.batch, "validation_loss": loss}
            for one, loss in sorted(reached.marks.items())
        ],
        "train_loss": reached.curve,
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
        + (f" --size {given.size}" if given.size else "")
        + "".join(f" --option {key}={value}" for key, value in given.options.items()),
    }
    write_card(path.with_suffix(".json"), card)


def promote(folder: Path) -> None:
    """Make the zoo's own networks those of the highest mark that all of their size and of the first seed have
    reached, or where they learn no more: whoever compares them compares one budget. Others stand in
    ``zoo.MARKS``.

    Killed at any instant, it leaves every network somewhere, and the next call finishes it.
    """
    with _alone_in(folder):
        _mend(folder)
        cards = {stem: zoo.read_card(stem, folder) for stem in zoo.names(folder)}
        tier = {
            stem: card for stem, card in cards.items() if card.mark is not None and not card.training_seed
        }
        for size in sorted({_size(card) for card in tier.values()}):
            _promote_together({stem: card for stem, card in tier.items() if _size(card) == size}, folder)


def _mend(folder: Path) -> None:
    """Finish what a kill left: weights under the card before, a mark that is the zoo's own too, and networks
    that are marks alone, of which the lowest becomes the zoo's own."""
    for stem in zoo.with_marks(folder):
        marks = [zoo.read_card(name, folder) for name in zoo.marks(stem, folder) if name != stem]
        if stem not in zoo.names(folder):
            _copy(marks[0], folder / stem)
        own = zoo.read_card(stem, folder)
        found = file_sha256(own.weights)
        for card in marks:
            if _sha256(card) == found:
                _copy(card, folder / stem)
                _remove(card)


def _size(card: zoo.Card) -> tuple[int, int, int]:
    """Depth and width of the trunk, and how many networks of it were trained together."""
    trunk = card.network.trunk
    return trunk.depth, trunk.width, card.content.get("networks", 1)


def _promote_together(tier: Mapping[str, zoo.Card], folder: Path) -> None:
    reached = {stem: [zoo.read_card(one, folder) for one in zoo.marks(stem, folder)] for stem in tier}
    ends = [math.inf if _has_learned(found[-1]) else found[-1].mark or 0 for found in reached.values()]
    level = min(ends)
    for stem, own in tier.items():
        best = [card for card in reached[stem] if (card.mark or 0) <= level][-1:]
        if best and (best[0].mark or 0) > (own.mark or 0):
            _copy(_untuned(own), folder / zoo.MARKS / f"{stem}-{own.mark}x")
            _copy(best[0], folder / stem)
            _remove(best[0])


def _untuned(card: zoo.Card) -> zoo.Card:
    """Without its guidance: all marks of a network are decoded at one scale, that of its last."""
    return dataclasses.replace(
        card, content={key: value for key, value in card.content.items() if key != "guidance"}
    )


def _has_learned(card: zoo.Card) -> bool:
    """Whether the card's network is the last one of its training."""
    losses = {one["mark"]: one["validation_loss"] for one in card.content["marks"]}
    known = {field.name for field in dataclasses.fields(MarkRecipe)}
    recipe = {key: value for key, value in card.content["recipe"].items() if key in known}
    recipe |= {key: tuple(recipe[key]) for key in ("marks", "betas") if key in recipe}
    return MarkRecipe(**recipe).next_mark(losses) is None


def _sha256(card: zoo.Card) -> str | None:
    """Of the weights that a card was written for."""
    return card.content.get("weights", {}).get("sha256")


def _copy(card: zoo.Card, target: Path) -> None:
    """Weights, then card of a network under another name too, in place of what had it before."""
    weights = target.with_name(f"{target.name}.safetensors")
    target.parent.mkdir(exist_ok=True)
    write_whole(weights, lambda file: file.write(card.weights.read_bytes()))
    content = {**card.content, "weights": {**card.content["weights"], "file": weights.name}}
    write_card(target.with_name(f"{target.name}.json"), content)


def _remove(card: zoo.Card) -> None:
    card.weights.with_suffix(".json").unlink()
    card.weights.unlink()
