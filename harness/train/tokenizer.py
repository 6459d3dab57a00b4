"""Train the small tokenizer of the controlled tier and write it to the zoo with its card."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backbones.tokenizers import load_tokenizer
from backbones.tokenizers.base import Tokenizer
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer
from backbones.transformer import parameter_count
from backbones.weights import save_half, write_card
from harness.images.codes import decode_images, encode_variants
from harness.images.data import Dataset, augmentation_of, load_dataset
from harness.images.names import is_fashion
from harness.machine.precision import taught_products
from harness.train.fitting import Budget, fit, seeded
from pardec.errors import UserError

WATCHED = 1000
"""Held-out images that the curve is drawn from."""


@dataclass(frozen=True)
class TokenizerBudget(Budget):
    """Of all kinds of tokenizers."""

    steps: int = 5000
    batch: int = 32
    clip: float | None = 1.0
    absolute_weight: float = 0.3
    """Weight of the mean absolute error beside the mean squared error; it keeps strokes sharp."""
    saturation_weight: float = 0.02
    """Weight of the mean squared excess of the latents' magnitude over 1.5; without it the bounding tanh can
    saturate in the first steps, and a saturated code never learns again."""


def train_tokenizer(
    out_dir: Path,
    steps: int = TokenizerBudget.steps,
    seed: int = 0,
    device: str = "cpu",
    data: str = "fashion",
    config: FSQConfig | None = None,
) -> Path:
    """Train on the augmented training split and write tokenizer.safetensors and tokenizer.json.

    The stored half-precision weights, read back as float32, are the tokenizer: the card's figures are theirs.

    Returns:
        The path of the weights.
    """
    started = Started.now()
    budget = TokenizerBudget(steps=steps, seed=seed, augmentation=augmentation_of(data))
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    config = config or default_config(train)
    with seeded(seed):
        tokenizer = FSQTokenizer(config).to(device).to(memory_format=torch.channels_last)

    def loss_of(images: Tensor) -> Tensor:
        with taught_products(images.device):
            rebuilt, latents = tokenizer(images)
        return tokenizer_loss(rebuilt, latents, images, budget)

    curve = fit_tokenizer(tokenizer, train, held_out, budget, loss_of)
    about = {
        "name": "tokenizer",
        "kind": "finite scalar quantisation",
        "environment": run_card(started, device),
        "command": f"pardec train tokenizer --data {data} --steps {steps} --seed {seed}",
    }
    header = {"kind": "fsq", **asdict(config)}
    return store_tokenizer(
        tokenizer, out_dir / "tokenizer.safetensors", header, (train, held_out), budget, curve, about
    )


def store_tokenizer(
    tokenizer: Tokenizer,
    path: Path,
    header: dict[str, Any],
    data: tuple[Dataset, Dataset],
    budget: TokenizerBudget,
    curve: list[dict[str, float]],
    about: dict[str, Any],
) -> Path:
    """Write the weights in half precision and, beside them, a card whose figures are of the file read back.

    header: kind and configuration. data: training and held-out split. about: what else the card says.
    """
    sha256 = save_half(tokenizer, path, header)
    frozen = load_tokenizer(path)
    card = {
        **about,
        "config": {key: value for key, value in header.items() if key != "kind"},
        "codes": frozen.codes,
        "grid": frozen.grid,
        "parameters": parameter_count(frozen),
        "weights": {
            "file": path.name,
            "sha256": sha256,
            "bytes": path.stat().st_size,
            "precision": "float16",
        },
        "data": data_card(*data),
        "budget": asdict(budget) | {"optimiser": "AdamW"},
        "losses": curve,
        "reconstruction": {split.split: reconstruction(frozen, split) for split in data},
    }
    write_card(path.with_suffix(".json"), card)
    return path


def default_config(train: Dataset) -> FSQConfig:
    """Clothes get a code for 2 x 2 pixels, so that a grid has the papers' 256 places; 32 codes are few enough
    for small networks to learn. UserError for images that no grid of codes covers."""
    image_size = (train.images.shape[2], train.images.shape[3])
    if is_fashion(train.name):
        return FSQConfig((8, 4), patch=2, image_size=image_size)
    try:
        return FSQConfig(image_size=image_size)
    except ValueError as error:
        raise UserError(
            f"data set '{train.name}': {error}; imagefolder:PATH?size=S crops and resizes all"
        ) from None


def fit_tokenizer(
    tokenizer: Tokenizer,
    train: Dataset,
    held_out: Dataset,
    budget: TokenizerBudget,
    loss_of: Callable[[Tensor], Tensor],
) -> list[dict[str, float]]:
    """Minimise a loss of float images [B, 3, H, W] in [-1, 1] over what of a tokenizer may learn; returns
    about 24 points of the curve."""
    watched = held_out.first(WATCHED)
    learning = [parameter for parameter in tokenizer.parameters() if parameter.requires_grad]
    return fit(
        "tokenizer",
        learning,
        train,
        budget,
        lambda images, labels: loss_of(images),
        lambda: {"held_out_psnr_db": reconstruction(tokenizer, watched)["psnr_db"]},
    )


def tokenizer_loss(rebuilt: Tensor, latents: Tensor, images: Tensor, budget: TokenizerBudget) -> Tensor:
    excess = (latents.abs() - 1.5).relu()
    return pixel_loss(rebuilt, images, budget) + budget.saturation_weight * excess.square().mean()


def pixel_loss(rebuilt: Tensor, images: Tensor, budget: TokenizerBudget) -> Tensor:
    difference = rebuilt - images
    return difference.square().mean() + budget.absolute_weight * difference.abs().mean()


def reconstruction(tokenizer: Tokenizer, dataset: Dataset) -> dict[str, float]:
    """Errors of byte images on the scale 0..1, and how evenly the codes are used."""
    codes = torch.from_numpy(encode_variants(dataset, tokenizer, 1, 0).codes[0]).long()  # [n, h * w]
    difference = (decode_images(codes, tokenizer).float() - dataset.images.float()) / 255
    error = difference.square().mean().item()
    share = codes.flatten().bincount(minlength=tokenizer.codes) / codes.numel()
    entropy = -(share * share.clamp_min(1e-12).log2()).sum().item()
    return {
        "mean_squared_error": error,
        "mean_absolute_error": difference.abs().mean().item(),
        "psnr_db": -10 * math.log10(error),
        "codes_used": int((share > 0).sum()),
        "code_entropy_bits": entropy,
        "code_perplexity": 2**entropy,
    }


def data_card(train: Dataset, held_out: Dataset) -> dict[str, Any]:
    return {
        "name": "fashion" if is_fashion(train.name) else train.name,
        "classes": list(train.classes),
        train.split: {"images": len(train), "sha256": train.sha256},
        held_out.split: {"images": len(held_out), "sha256": held_out.sha256},
    }


@dataclass(frozen=True)
class Started:
    """When a run began: by the calendar, and by the clock that nobody sets."""

    at: datetime
    monotonic_s: float

    @classmethod
    def now(cls) -> "Started":
        return cls(datetime.now(UTC), time.monotonic())


def run_card(started: Started, device: str) -> dict[str, Any]:
    return {
        "started_at": started.at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started.monotonic_s, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
