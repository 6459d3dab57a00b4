"""Train the small tokenizer of the controlled tier and write it to the zoo with its card."""

import math
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from backbones.tokenizers import load_tokenizer
from backbones.tokenizers.base import Tokenizer
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer
from backbones.weights import count_parameters, save_half, write_card
from harness.images.codes import decode_images, encode_variants
from harness.images.data import Augmentation, Dataset, epochs, load_dataset, to_float
from harness.train.rates import rate_of_step


@dataclass(frozen=True)
class TokenizerBudget:
    """AdamW over a one-cycle rate: linear warm-up, then cosine to almost zero."""

    steps: int = 5000
    batch: int = 32
    rate: float = 2e-3
    warmup: int = 300
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    absolute_weight: float = 0.3
    """Weight of the mean absolute error beside the mean squared error; it keeps strokes sharp."""
    saturation_weight: float = 0.02
    """Weight of the mean squared excess of the latents' magnitude over 1.5; without it the bounding tanh can
    saturate in the first steps, and a saturated code never learns again."""
    seed: int = 0

    def rate_at(self, step: int) -> float:
        return rate_of_step(step, self.rate, self.steps, self.warmup)


def train_tokenizer(
    out_dir: Path,
    steps: int = TokenizerBudget.steps,
    seed: int = 0,
    device: str = "cpu",
    data: str = "mnist",
    config: FSQConfig | None = None,
) -> Path:
    """Train on the augmented training split and write tokenizer.safetensors and tokenizer.json.

    The stored half-precision weights, read back as float32, are the tokenizer: the card's figures are theirs.

    Returns:
        The path of the weights.
    """
    started = Started.now()
    budget = TokenizerBudget(steps=steps, seed=seed)
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    config = config or FSQConfig(image_size=(train.images.shape[2], train.images.shape[3]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = FSQTokenizer(config).to(device).to(memory_format=torch.channels_last)
    curve = _fit(tokenizer, train, held_out, budget)
    path = out_dir / "tokenizer.safetensors"
    sha256 = save_half(tokenizer, path, {"kind": "fsq", **asdict(config)})
    frozen = load_tokenizer(path)
    card = {
        "name": "tokenizer",
        "kind": "finite scalar quantisation",
        "config": asdict(config),
        "codes": frozen.codes,
        "grid": frozen.grid,
        "parameters": count_parameters(frozen),
        "weights": {
            "file": path.name,
            "sha256": sha256,
            "bytes": path.stat().st_size,
            "precision": "float16",
        },
        "data": data_card(train, held_out),
        "budget": asdict(budget) | {"optimiser": "AdamW", "augmentation": asdict(Augmentation())},
        "losses": curve,
        "reconstruction": {split.split: reconstruction(frozen, split) for split in (train, held_out)},
        "environment": run_card(started, device),
        "command": f"pardec train tokenizer --data {data} --steps {steps} --seed {seed}",
    }
    write_card(path.with_suffix(".json"), card)
    return path


def _fit(
    tokenizer: FSQTokenizer, train: Dataset, held_out: Dataset, budget: TokenizerBudget
) -> list[dict[str, float]]:
    """Minimise the reconstruction error; returns about 24 points of the loss curve."""
    generator = torch.Generator().manual_seed(budget.seed)
    device = next(tokenizer.parameters()).device
    images = to_float(train.images)  # [n, 3, H, W]
    optimiser = torch.optim.AdamW(
        tokenizer.parameters(), lr=budget.rate, betas=budget.betas, weight_decay=budget.weight_decay
    )
    curve, total, every = [], 0.0, max(1, budget.steps // 24)
    rows = epochs(len(train), budget.batch, generator)
    for step in tqdm(range(budget.steps), desc="tokenizer", unit="step", disable=None):
        for group in optimiser.param_groups:
            group["lr"] = budget.rate_at(step)
        batch = Augmentation()(images[next(rows)], generator).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            rebuilt, latents = tokenizer(batch)
        loss = tokenizer_loss(rebuilt, latents, batch, budget)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tokenizer.parameters(), budget.clip)
        optimiser.step()
        total += loss.item()
        if (step + 1) % every == 0:
            error = reconstruction(tokenizer, held_out)
            curve.append({"step": step + 1, "train": total / every, "held_out_psnr_db": error["psnr_db"]})
            total = 0.0
            point = f"loss {curve[-1]['train']:.4f}, held-out PSNR {error['psnr_db']:.2f} dB"
            tqdm.write(f"tokenizer step {step + 1}: {point}", file=sys.stderr)
    return curve


def tokenizer_loss(rebuilt: Tensor, latents: Tensor, images: Tensor, budget: TokenizerBudget) -> Tensor:
    difference = rebuilt - images
    excess = (latents.abs() - 1.5).relu()
    error = difference.square().mean() + budget.absolute_weight * difference.abs().mean()
    return error + budget.saturation_weight * excess.square().mean()


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
        "name": train.name,
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
