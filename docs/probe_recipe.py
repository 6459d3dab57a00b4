"""Trains short legs of the controlled tier's recipe with one setting changed; a line of JSON for each.

    python docs/probe_recipe.py raster depth8 --images 12000 --data idx:DIR >> results/recipe_probes.jsonl

A leg is warmed up, constant and decayed in the shares of the recipe's first one, so a probe ends in a
finished network; it is not kept. Losses of one strategy and one number of images compare.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from backbones.config import NetworkConfig
from backbones.transformer import parameter_count
from harness.machine.environment import environment
from harness.machine.precision import product_type, type_name
from harness.train.mark_recipe import MarkRecipe
from harness.train.tier import Material, material, trainer_of
from harness.weights import zoo
from pardec.errors import UserError

RECIPE = MarkRecipe()
CHANGES: Mapping[str, dict[str, Any]] = {
    "none": {},
    "batch8": {"batch": 8},
    "batch32": {"batch": 32},
    "rates-halved": {"rate": RECIPE.rate / 2, "matrix_rate": RECIPE.matrix_rate / 2},
    "rates-doubled": {"rate": RECIPE.rate * 2, "matrix_rate": RECIPE.matrix_rate * 2},
    "depth8": {"depth": 8},
}
"""Of the recipe, but for ``depth``, the trunk's. Rates are per step and stay where the batch changes."""


def probe(strategy: str, change: str, images: int, given: Material) -> dict[str, Any]:
    """What a leg of ``images`` came to, loss in nats a code; UserError where they are no whole batches."""
    settings = dict(CHANGES[change])
    config = deeper(given.config, settings.pop("depth", given.config.trunk.depth))
    recipe = leg_of(dataclasses.replace(RECIPE, **settings), images)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(strategy, recipe, dataclasses.replace(given, config=config), Path(folder))
        trainer.train_to(1, given.train, given.validation, lambda mark: None, say=to_stderr)
    return {
        "strategy": strategy,
        "change": change,
        "images": images,
        "parameters": parameter_count(trainer.network),
        "validation_loss": trainer.reached.marks[1],
        "products": type_name(product_type()),
        "environment": environment(),
    }


def leg_of(recipe: MarkRecipe, images: int) -> MarkRecipe:
    """The recipe's first leg on fewer images: every part of it in its share."""
    if images % recipe.batch:
        raise UserError(f"{images} images are no whole batches of {recipe.batch}")
    warmup = RECIPE.warmup_steps * RECIPE.batch / RECIPE.base_images
    steps = max(1, round(warmup * images / recipe.batch))
    return dataclasses.replace(recipe, base_images=images, marks=(1,), warmup_steps=steps)


def deeper(config: NetworkConfig, depth: int) -> NetworkConfig:
    return dataclasses.replace(config, trunk=dataclasses.replace(config.trunk, depth=depth))


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("strategy")
    options.add_argument("change", nargs="+", choices=CHANGES)
    options.add_argument("--images", type=int, default=12_000)
    options.add_argument("--data", default="fashion", help="fashion, or idx:DIR")
    options.add_argument("--threads", type=int, default=1)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            given = material(asked.data, zoo.folder_of(None), Path(folder))
        for change in asked.change:
            print(json.dumps(probe(asked.strategy, change, asked.images, given)), flush=True)
    except UserError as error:
        options.error(str(error))


if __name__ == "__main__":
    main()
