"""A strategy's network on the controlled trunk and images of a folder, under the one budget of ``Recipe``."""

from datetime import UTC, datetime
from pathlib import Path

from backbones.config import NetworkConfig
from backbones.controlled import controlled_network
from backbones.tokenizers import Tokenizer, load_tokenizer
from harness.images.codes import encode_variants
from harness.images.data import Dataset, check_size, load_dataset
from harness.machine.environment import command
from harness.train.saved_run import set_aside
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
    again: bool = False,
) -> Path:
    """Train a strategy's network into the zoo ``folder``, resuming a run of the same in ``runs``.

    codes: an npz of training codes; made, and kept in ``runs``, where there is none. again: set the run there
    aside. UserError for images or codes that don't fit the tokenizer or the classes, or a run of another
    recipe, tokenizer or data set.
    """
    strategy = registry.get(name)
    tokenizer_file = zoo.own_file(strategy.tokenizer, folder)
    tokenizer = load_tokenizer(tokenizer_file)
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    check_size(train, tokenizer.image_size, f"tokenizer '{tokenizer_file}'")
    recipe = Recipe(steps=Recipe.steps if steps is None else steps, seed=seed or 0)
    config = controlled_network(tokenizer.codes, len(train.classes), tokenizer.grid, size)
    given = None if codes is None else _given(codes, config, strategy.places(config.grid))
    made_of = {
        "tokenizer_sha256": file_sha256(tokenizer_file),
        "train_sha256": train.sha256,
        "held_out_sha256": held_out.sha256,
        "codes_sha256": None if codes is None else file_sha256(codes),
    }
    trainer = Trainer(
        strategy,
        config,
        recipe,
        runs / zoo.file_stem(name, recipe.seed, size),
        device,
        code_vectors=tokenizer.vectors(),
        tokenizer=tokenizer,
        made_of=made_of,
    )
    if again:
        set_aside(trainer.path)
    trainer.resume()
    taught = given or _codes(train, tokenizer, tokenizer_file, runs, VARIANTS)
    trainer.run(taught, _codes(held_out, tokenizer, tokenizer_file, runs, 1))
    card = {
        "trained_on": data_card(train, held_out) | {"variants": taught.codes.shape[0]},
        "tokenizer_sha256": made_of["tokenizer_sha256"],
        "device": device,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command(),
    }
    return store_zoo(trainer, folder, card, size)


def _given(path: Path, config: NetworkConfig, places: int) -> CodesInMemory:
    """The training codes of a file; UserError for those of another grid, code book or set of classes."""
    codes = CodesInMemory.from_npz(path)
    if codes.codes.shape[-1] != places:
        raise UserError(f"--codes '{path}': {codes.codes.shape[-1]} codes an image, the grid has {places}")
    kinds = (("code", codes.codes, config.codes), ("label", codes.labels, config.classes))
    for what, values, count in kinds:
        for value in values.aminmax():
            if not 0 <= value < count:
                raise UserError(f"--codes '{path}': {what} {value}; expected 0 to {count - 1}")
    return codes


def _codes(
    dataset: Dataset, tokenizer: Tokenizer, tokenizer_file: Path, runs: Path, variants: int
) -> CodesInMemory:
    """Codes of a split: those of an earlier run with this tokenizer and data, or fresh ones."""
    content = f"{file_sha256(tokenizer_file)} {dataset.sha256} {variants}"
    path = runs / f"codes-{text_key(content)}.npz"
    if not path.is_file():
        encode_variants(dataset, tokenizer, variants, seed=0).save(path)
    return CodesInMemory.from_npz(path)
