"""pardec train: the tokenizer, the classifiers, or the networks of strategies, into the zoo; or at scale."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell.cell import checked
from harness.commands.common import add_plugin_flag
from harness.commands.train_scale_flags import add_scale_flags, refuse_scale_flags, run_at_scale
from harness.images.names import is_fashion
from harness.machine.environment import usable_cores
from harness.weights import zoo
from pardec.errors import UserError, unknown
from pardec.files import spec_of
from pardec.hashing import file_sha256, text_key
from strategies.decoding import registry

if TYPE_CHECKING:
    from harness.train.mark_recipe import MarkRecipe
    from harness.train.trainer import CodesInMemory

SUMMARY = "train a strategy's network (or all that is missing) under the common budget"
RUNS = Path("runs/train")
FILES = (*zoo.SHARED, *zoo.OTHER_TOKENIZERS)
VARIANTS = 64
"""Augmented encodings of every training image."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", nargs="?", metavar="WHAT", help="tokenizer, features, judge or a strategy")
    command.add_argument("--strategy", metavar="NAME", help="the same as naming it as WHAT")
    command.add_argument("--all", action="store_true", help="everything")
    command.add_argument("--again", action="store_true", help="with --all: also what is in the zoo already")
    command.add_argument("--steps", type=int, help="optimiser steps (default: as the recipe says)")
    command.add_argument("--seed", type=int, help="0, or one more network beside it: zoo/NAME-seed1")
    command.add_argument(
        "--data",
        default="mnist",
        type=spec_of,
        help="fashion, idx:DIR, mnist or imagefolder:PATH (default: %(default)s); with the first two, "
        "networks are trained from mark to mark",
    )
    command.add_argument("--most", type=int, metavar="MARK", help="with fashion: no mark beyond this one")
    command.add_argument(
        "--codes",
        type=Path,
        metavar="PATH",
        help="npz of training codes (default: made); with --trunk: folder of pardec encode",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="zoo folder (default: ours)")
    command.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help="states to resume from (default: %(default)s)"
    )
    command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    command.add_argument("--threads", type=int, default=0, help="CPU threads (default: every core)")
    add_plugin_flag(command)
    add_scale_flags(command)


def run(options: argparse.Namespace) -> int:
    for path in options.plugin:
        registry.add_plugin(path)
    if options.trunk is not None:
        return run_at_scale(options)
    refuse_scale_flags(options)
    targets = _targets(options)
    for key, least in (("steps", 1), ("threads", 0), ("seed", 0)):
        value = getattr(options, key)
        if value is not None and value < least:
            raise UserError(f"--{key} {value}: expected at least {least}")
    checked("threads", options.threads, "--threads")
    import torch

    from harness.subject.prepare import check_device

    check_device(options.device, "float32")
    torch.set_num_threads(options.threads or usable_cores())
    folder = zoo.folder_of(options.out)
    if is_fashion(options.data):
        _train_tier(targets, options.out or zoo.SHIPPED / "fashion", options)
        return 0
    for target in targets:
        stem = target if target in FILES else zoo.file_stem(target, options.seed or 0)
        if options.all and not options.again and (folder / f"{stem}.json").is_file():
            print(f"{target}: in the zoo already")
            continue
        print(f"{target}: {_train(target, folder, options)}")
    return 0


def _train_tier(targets: list[str], folder: Path, options: argparse.Namespace) -> None:
    """Tokenizer, then networks from mark to mark, then what else is asked for of the new tier."""
    from harness.train.tier import ORDER, material, train_tier

    files = [target for target in targets if target in FILES]
    if options.all and not options.again:
        files = [target for target in files if not (folder / f"{target}.json").is_file()]
    names = sorted(set(targets) - set(FILES), key=lambda name: (*ORDER, name).index(name))
    recipe = _tier_recipe(options) if names else None
    for target in [target for target in files if target == "tokenizer"]:
        print(f"{target}: {_train(target, folder, options)}")
    if recipe is not None:
        train_tier(
            names, recipe, material(options.data, folder, options.runs), folder, options.runs, options.most
        )
    for target in [target for target in files if target != "tokenizer"]:
        print(f"{target}: {_train(target, folder, options)}")


def _tier_recipe(options: argparse.Namespace) -> "MarkRecipe":
    from harness.train.mark_recipe import MarkRecipe

    for flag in ("steps", "codes"):
        if getattr(options, flag) is not None:
            raise UserError(f"--{flag}: networks on {options.data} are trained from mark to mark; see --most")
    recipe = MarkRecipe(seed=options.seed or 0)
    if options.most is not None and options.most not in recipe.marks:
        raise UserError(f"--most {options.most}: expected one of {', '.join(map(str, recipe.marks))}")
    return recipe


def _targets(options: argparse.Namespace) -> list[str]:
    strategies = registry.names()
    shared = [*zoo.SHARED, *(zoo.OTHER_TOKENIZERS if is_fashion(options.data) else ())]
    asked = [name for name in (options.what, options.strategy) if name is not None]
    if len(asked) + options.all != 1:
        raise UserError(f"train takes one of: --all, {', '.join([*shared, *strategies])}")
    if options.most is not None and not is_fashion(options.data):
        raise UserError(f"--most: networks on {options.data} have one budget; fashion and idx:DIR have marks")
    if options.all:
        return [*shared, *registry.trained()]
    valid = strategies if options.strategy else [*shared, *strategies]
    if asked[0] not in valid:
        raise unknown("strategy" if options.strategy else "training target", asked[0], valid)
    base = registry.get(asked[0]).base if asked[0] in strategies else None
    if base is not None:
        raise UserError(f"strategy '{asked[0]}' trains no network; train its base '{base}'")
    return asked


def _train(target: str, folder: Path, options: argparse.Namespace) -> Path:
    settings: dict[str, Any] = {"device": options.device, "data": options.data}
    settings |= {key: getattr(options, key) for key in ("steps", "seed") if getattr(options, key) is not None}
    if target == "tokenizer":
        from harness.train.tokenizer import train_tokenizer

        return train_tokenizer(folder, **settings)
    if target in zoo.OTHER_TOKENIZERS:
        from harness.train import more_tokenizers

        settings.pop("device")
        if target == more_tokenizers.MULTISCALE:
            return more_tokenizers.train_multiscale(folder, **settings)
        return more_tokenizers.train_robust(folder, zoo.shared_file("tokenizer", folder), **settings)
    if target in zoo.SHARED:
        from backbones.tokenizers import load_tokenizer
        from harness.train.classifier import train_classifier

        # Classifiers don't need the tokenizer; with one their cards also judge its reconstructions.
        path = folder / "tokenizer.safetensors"
        tokenizer = load_tokenizer(path) if path.is_file() else None
        return train_classifier(target, folder, tokenizer=tokenizer, **settings)  # type: ignore[arg-type]
    return train_network(target, folder, options)


def train_network(name: str, folder: Path, options: argparse.Namespace) -> Path:
    """Train a strategy's network on the controlled trunk, resuming a run of the same budget."""
    import dataclasses

    from backbones.controlled import controlled_network
    from backbones.tokenizers import load_tokenizer
    from harness.images.data import load_dataset
    from harness.machine.environment import command
    from harness.train.store_zoo import store_zoo
    from harness.train.tokenizer import data_card
    from harness.train.trainer import Recipe, Trainer

    tokenizer_file = zoo.shared_file("tokenizer", folder)
    tokenizer = load_tokenizer(tokenizer_file)
    train, held_out = load_dataset(options.data, "train"), load_dataset(options.data, "held-out")
    recipe = Recipe()
    changes = {key: getattr(options, key) for key in ("steps", "seed") if getattr(options, key) is not None}
    recipe = dataclasses.replace(recipe, **changes)
    stem = zoo.file_stem(name, recipe.seed)
    config = controlled_network(tokenizer.codes, len(train.classes), tokenizer.grid)
    trainer = Trainer(registry.get(name), config, recipe, options.runs / stem, options.device)
    try:
        trainer.resume()
    except ValueError as error:
        raise UserError(f"{error}; choose another --runs to begin anew") from None
    if options.codes is not None and not options.codes.is_file():
        raise UserError(f"--codes '{options.codes}': no such file")
    codes = _codes(train, tokenizer, tokenizer_file, options.runs, VARIANTS, options.codes)
    validation = _codes(held_out, tokenizer, tokenizer_file, options.runs, 1, None)
    for one, where in ((codes, options.codes or "training codes"), (validation, "validation codes")):
        if one.codes.shape[-1] != config.places:
            raise UserError(f"{where}: {one.codes.shape[-1]} codes an image, the grid has {config.places}")
    trainer.run(codes, validation)
    card = {
        "trained_on": data_card(train, held_out) | {"variants": codes.codes.shape[0]},
        "tokenizer_sha256": file_sha256(tokenizer_file),
        "device": options.device,
        "date": _today(),
        "command": command(),
    }
    return store_zoo(trainer, folder, card)


def _codes(
    dataset: Any, tokenizer: Any, tokenizer_file: Path, runs: Path, variants: int, given: Path | None
) -> "CodesInMemory":
    """Codes of a split: those given, those of an earlier run with this tokenizer and data, or fresh ones."""

    from harness.images.codes import encode_variants
    from harness.train.trainer import CodesInMemory

    if given is not None:
        return CodesInMemory.from_npz(given)
    content = f"{file_sha256(tokenizer_file)} {dataset.sha256} {variants}"
    path = runs / f"codes-{text_key(content)}.npz"
    if not path.is_file():
        encode_variants(dataset, tokenizer, variants, seed=0).save(path)
    return CodesInMemory.from_npz(path)


def _today() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).date().isoformat()
