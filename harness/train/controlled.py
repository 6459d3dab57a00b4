"""A strategy's network on the controlled trunk and images of a folder, under the one budget of ``Recipe``."""

from datetime import UTC, datetime
from pathlib import Path

from backbones.controlled import controlled_network
from backbones.tokenizers import Tokenizer, load_tokenizer
from harness.images.codes import encode_variants
from harness.images.data import Dataset, load_dataset
from harness.machine.environment import command
from harness.train.store_zoo import store_zoo
from harness.train.tokenizer import data_card
from harness.train.trainer import CodesInMemory, Recipe, Trainer
from harness.weights import zoo
from pardec.errors import UserError
from pardec.hashing import file_sha256, text_key
from strategies.decoding import registry

VARIANTS = 64
"""Augmented encodings of every training image."""


def train_network(
    name: str,
    folder: Path,
    runs: Path,
    data: str,
    device: str = "cpu",
    codes: Path | None = None,
    steps: int | None = None,
    seed: int | None = None,
    size: str = "",
) -> Path:
    """Train a strategy's network into the zoo ``folder``, resuming a run of the same budget in ``runs``.

    codes: an npz of training codes; made, and kept in ``runs``, where there is none. UserError for codes that
    don't fit the tokenizer's grid, or a run of another budget.
    """
    strategy = registry.get(name)
    tokenizer_file = zoo.shared_file(strategy.tokenizer, folder)
    tokenizer = load_tokenizer(tokenizer_file)
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    recipe = Recipe(steps=Recipe.steps if steps is None else steps, seed=seed or 0)
    stem = zoo.file_stem(name, recipe.seed, size)
    config = controlled_network(tokenizer.codes, len(train.classes), tokenizer.grid, size)
    trainer = Trainer(
        strategy,
        config,
        recipe,
        runs / stem,
        device,
        code_vectors=tokenizer.vectors(),
        tokenizer=tokenizer,
    )
    try:
        trainer.resume()
    except ValueError as error:
        raise UserError(f"{error}; choose another --runs to begin anew") from None
    taught = _codes(train, tokenizer, tokenizer_file, runs, VARIANTS, codes)
    validation = _codes(held_out, tokenizer, tokenizer_file, runs, 1, None)
    for one, where in ((taught, codes or "training codes"), (validation, "validation codes")):
        if one.codes.shape[-1] != strategy.places(config.grid):
            expected = strategy.places(config.grid)
            raise UserError(f"{where}: {one.codes.shape[-1]} codes an image, the grid has {expected}")
    trainer.run(taught, validation)
    card = {
        "trained_on": data_card(train, held_out) | {"variants": taught.codes.shape[0]},
        "tokenizer_sha256": file_sha256(tokenizer_file),
        "device": device,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command(),
    }
    return store_zoo(trainer, folder, card, size)


def _codes(
    dataset: Dataset,
    tokenizer: Tokenizer,
    tokenizer_file: Path,
    runs: Path,
    variants: int,
    given: Path | None,
) -> CodesInMemory:
    """Codes of a split: those given, those of an earlier run with this tokenizer and data, or fresh ones."""
    if given is not None:
        return CodesInMemory.from_npz(given)
    content = f"{file_sha256(tokenizer_file)} {dataset.sha256} {variants}"
    path = runs / f"codes-{text_key(content)}.npz"
    if not path.is_file():
        encode_variants(dataset, tokenizer, variants, seed=0).save(path)
    return CodesInMemory.from_npz(path)
