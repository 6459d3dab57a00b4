"""A trained network into the zoo: its weights, then its card."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from backbones.transformer import parameter_count
from backbones.weights import save_half, write_card
from harness.train.trainer import Trainer, card
from harness.weights import zoo


def store_zoo(trainer: Trainer, folder: Path, data: Mapping[str, Any], size: str = "") -> Path:
    """Write the kept weights in half precision, then the card; returns the path of the weights.

    data: what the card says besides the trainer's own account, such as ``tokenizer_sha256``, the command and
    ``tokenizer``, the name of a published one.
    """
    path = Path(folder) / f"{zoo.file_stem(trainer.strategy.name, trainer.recipe.seed, size)}.safetensors"
    trunk = zoo.trunk_hash(trainer.config.trunk)
    header = {
        "strategy": trainer.strategy.name,
        "options": asdict(trainer.strategy),
        "network": asdict(trainer.config),
        "parameters": parameter_count(trainer.network),
        "trunk_hash": trunk,
        "tokenizer_sha256": data.get("tokenizer_sha256"),
        **{key: data[key] for key in ("tokenizer",) if key in data},
    }
    sha256 = save_half(trainer.kept, path, header)
    weights = {"file": path.name, "sha256": sha256, "bytes": path.stat().st_size, "precision": "float16"}
    write_card(path.with_suffix(".json"), card(trainer, {"trunk_hash": trunk, "weights": weights, **data}))
    return path
