"""The zoo's files and networks, trained one after the other where they are missing or asked for."""

import argparse
from pathlib import Path
from typing import Any

import torch

from backbones.tokenizers import load_tokenizer
from harness.cell import inline
from harness.cell.cell import checked
from harness.commands.train_scale_flags import refuse_scale_flags
from harness.commands.train_scale_run import run_at_scale
from harness.images.names import is_fashion
from harness.machine.environment import usable_cores
from harness.subject.prepare import check_device
from harness.train import more_tokenizers
from harness.train.classifier import train_classifier
from harness.train.controlled import train_network
from harness.train.mark_recipe import MarkRecipe
from harness.train.tier import ORDER, material, train_tier
from harness.train.tokenizer import train_tokenizer
from harness.weights import zoo
from pardec.errors import UserError, unknown
from strategies.decoding import registry

FILES = (*zoo.SHARED, *zoo.OTHER_TOKENIZERS)
DATA = "fashion"


def train(options: argparse.Namespace) -> int:
    for path in options.plugin:
        registry.add_plugin(path)
    if options.trunk is not None:
        return run_at_scale(options)
    refuse_scale_flags(options)
    options.data = options.data or DATA
    targets = _targets(options)
    _check_device(targets, options)
    for key, least in (("steps", 1), ("threads", 0), ("seed", 0)):
        value = getattr(options, key)
        if value is not None and value < least:
            raise UserError(f"--{key} {value}: expected at least {least}")
    checked("threads", options.threads, "--threads")
    torch.set_num_threads(options.threads or usable_cores())
    folder = zoo.folder_of(options.out)
    print(f"zoo: {folder}")
    if is_fashion(options.data):
        _train_tier(targets, folder, options)
        return 0
    for target in targets:
        stem = target if target in FILES else zoo.file_stem(target, options.seed or 0, options.size)
        if options.all and not options.again and (folder / f"{stem}.json").is_file():
            print(f"{target}: in the zoo already")
            continue
        print(f"{target}: {_train(target, folder, options)}")
    return 0


def _train_tier(targets: list[str], folder: Path, options: argparse.Namespace) -> None:
    """Tokenizer, then networks from mark to mark, then what else is asked for."""
    files = [target for target in targets if target in FILES]
    if options.all and not options.again:
        files = [target for target in files if not (folder / f"{target}.json").is_file()]
    names = sorted(set(targets) - set(FILES), key=lambda name: ((*ORDER, name).index(name), name))
    sizes = {options.size: names} | (_sizes_of_roles() if options.all else {})
    recipe = _tier_recipe(options) if names else None
    tokenizers = ("tokenizer", more_tokenizers.MULTISCALE)
    for target in [target for target in files if target in tokenizers]:
        print(f"{target}: {_train(target, folder, options)}")
    for size, of_size in sizes.items():
        for speaks in dict.fromkeys(registry.get(name).tokenizer for name in of_size):
            assert recipe is not None  # by names
            own = _strategy_options(options)
            given = material(options.data, folder, options.runs, speaks, size, own)
            print(f"{speaks}: {zoo.shared_file(speaks, folder)}")
            speakers = [name for name in of_size if registry.get(name).tokenizer == speaks]
            train_tier(speakers, recipe, given, folder, options.runs, options.most, options.again)
    for target in [target for target in files if target not in tokenizers]:
        print(f"{target}: {_train(target, folder, options)}")


def _sizes_of_roles() -> dict[str, list[str]]:
    """Networks of other sizes that strategies decode beside those of the trunk: size -> names."""
    found: dict[str, list[str]] = {}
    for strategy in map(registry.get, registry.loadable()):
        for stem in strategy.roles.values():
            name, _, size = stem.partition("-")
            if size:
                found.setdefault(size, []).append(name)
    return found


def _strategy_options(options: argparse.Namespace) -> dict[str, Any]:
    """Of the one strategy that is asked for; UserError for what it doesn't take."""
    found: dict[str, Any] = {}
    for text in options.option:
        found |= {key: word.value() for key, word in inline.settings(text, "--option").items()}
    if found:
        registry.get(options.what or options.strategy, **found)
    return found


def _tier_recipe(options: argparse.Namespace) -> MarkRecipe:
    for flag in ("steps", "codes"):
        if getattr(options, flag) is not None:
            raise UserError(f"--{flag}: networks on {options.data} are trained from mark to mark; see --most")
    recipe = MarkRecipe(seed=options.seed or 0)
    if options.most is not None and options.most not in recipe.marks:
        raise UserError(f"--most {options.most}: expected one of {', '.join(map(str, recipe.marks))}")
    return recipe


def _check_device(targets: list[str], options: argparse.Namespace) -> None:
    """UserError for a device that isn't there, or that one of the targets can't be trained on."""
    on_cpu = [
        target
        for target in targets
        if (target in zoo.OTHER_TOKENIZERS and not options.all)
        or (is_fashion(options.data) and target not in FILES)
    ]
    if on_cpu and options.device != "cpu":
        raise UserError(f"--device {options.device}: {on_cpu[0]} is trained on the CPU; expected cpu")
    check_device(options.device, "float32")


def _targets(options: argparse.Namespace) -> list[str]:
    strategies = registry.names()
    other = zoo.OTHER_TOKENIZERS if is_fashion(options.data) else (more_tokenizers.MULTISCALE,)
    shared = [*zoo.SHARED, *other]
    asked = [name for name in (options.what, options.strategy) if name is not None]
    if options.size and (options.all or {*asked} & {*FILES}):
        raise UserError(f"--size {options.size}: expected the name of a strategy whose network it is")
    if len(asked) + options.all != 1:
        raise UserError(f"train takes one of: --all, {', '.join([*shared, *strategies])}")
    if options.option and (options.all or not is_fashion(options.data) or {*asked} & {*FILES}):
        raise UserError("--option: expected the name of a strategy, on fashion or idx:DIR")
    if options.most is not None and not is_fashion(options.data):
        raise UserError(f"--most: networks on {options.data} have one budget; fashion and idx:DIR have marks")
    if options.all:
        return [*shared, *registry.trained()]
    valid = strategies if options.strategy else [*shared, *strategies]
    if asked[0] not in valid:
        raise unknown("strategy" if options.strategy else "training target", asked[0], valid)
    base = None if asked[0] in FILES else registry.get(asked[0]).base
    if base is not None:
        raise UserError(f"strategy '{asked[0]}' trains no network; train its base '{base}'")
    return asked


def _train(target: str, folder: Path, options: argparse.Namespace) -> Path:
    settings: dict[str, Any] = {"device": options.device, "data": options.data}
    settings |= {key: getattr(options, key) for key in ("steps", "seed") if getattr(options, key) is not None}
    if target == "tokenizer":
        return train_tokenizer(folder, **settings)
    if target in zoo.OTHER_TOKENIZERS:
        settings.pop("device")
        if target == more_tokenizers.MULTISCALE:
            return more_tokenizers.train_multiscale(folder, **settings)
        return more_tokenizers.train_robust(folder, zoo.own_file("tokenizer", folder), **settings)
    if target in zoo.SHARED:
        # Classifiers don't need the tokenizer; with one their cards also judge its reconstructions.
        path = folder / "tokenizer.safetensors"
        tokenizer = load_tokenizer(path) if path.is_file() else None
        return train_classifier(target, folder, tokenizer=tokenizer, **settings)  # type: ignore[arg-type]
    if options.codes is not None and not options.codes.is_file():
        raise UserError(f"--codes '{options.codes}': no such file")
    settings |= {"codes": options.codes, "size": options.size, "again": options.again}
    return train_network(target, folder, options.runs, **settings)
