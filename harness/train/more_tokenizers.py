"""The controlled tier's other tokenizers: VAR's multi-scale one, and a decoder that forgives wrong codes."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from backbones.checkpoints import CheckpointError
from backbones.tokenizers import load_tokenizer
from backbones.tokenizers.fsq import FSQTokenizer, Quantiser
from backbones.tokenizers.multiscale import MultiScaleConfig, MultiScaleQuantiser, MultiScaleTokenizer
from harness.images.codes import generator_of
from harness.images.data import check_size, load_dataset
from harness.machine.precision import taught_products
from harness.train.fitting import seeded
from harness.train.tokenizer import (
    Started,
    TokenizerBudget,
    fit_tokenizer,
    pixel_loss,
    run_card,
    store_tokenizer,
)
from pardec.hashing import file_sha256

MULTISCALE, ROBUST = "multiscale", "robust"
"""Files of a zoo."""
REVIVE_EVERY = 100
"""Steps after which code vectors that no image used are moved to where features are."""
MOST_WRONG = 0.3
"""Share of codes that are wrong in the worst images that the robust decoder learns from."""


def train_multiscale(
    out_dir: Path, data: str, steps: int = 6000, seed: int = 0, config: MultiScaleConfig | None = None
) -> Path:
    """Train VAR's tokenizer on the training split and write multiscale.safetensors and its card."""
    started = Started.now()
    # The distance weighs as much as the pixels: both are mean squares of about one.
    budget = TokenizerBudget(steps=steps, seed=seed)
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    config = config or MultiScaleConfig()
    check_size(train, config.image_size, "the multi-scale tokenizer")
    with seeded(seed):
        tokenizer = MultiScaleTokenizer(config).to(memory_format=torch.channels_last)
    reviver = Reviver(tokenizer.quantiser, seed)

    def loss_of(images: Tensor) -> Tensor:
        with taught_products():
            features = tokenizer.encoder(images)
        reviver.see(features.detach().float())
        with taught_products():
            rebuilt, distance = tokenizer.taught(features.float())
        return pixel_loss(rebuilt, images, budget) + distance

    curve = fit_tokenizer(tokenizer, train, held_out, budget, loss_of)
    about = {
        "name": MULTISCALE,
        "kind": "multi-scale residual quantisation",
        "places": tokenizer.quantiser.places,
        "environment": run_card(started, "cpu"),
        "command": f"pardec train {MULTISCALE} --data {data} --steps {steps} --seed {seed}",
    }
    header = {"kind": "multiscale", **asdict(config)}
    path = out_dir / f"{MULTISCALE}.safetensors"
    return store_tokenizer(tokenizer, path, header, (train, held_out), budget, curve, about)


class Reviver:
    """Moves code vectors that nothing uses onto residuals that were asked for."""

    def __init__(self, quantiser: MultiScaleQuantiser, seed: int) -> None:
        self.quantiser, self.seed = quantiser, seed
        self.used = torch.zeros(quantiser.codebook.num_embeddings, dtype=torch.long)
        self.steps = 0

    @torch.no_grad()
    def see(self, features: Tensor) -> None:
        """Count the codes of a batch's features [B, c, S, S]; at the first step all vectors are laid out."""
        steps = list(self.quantiser.steps(features))
        codes = torch.cat([codes.flatten() for _, codes, _, _ in steps])
        self.used += codes.bincount(minlength=len(self.used))
        if self.steps % REVIVE_EVERY == 0:
            wanted = torch.cat([wanted.flatten(2).transpose(1, 2).flatten(0, 1) for wanted, *_ in steps])
            idle = (self.used == 0).nonzero().flatten()
            if self.steps == 0:
                idle = torch.arange(len(self.used))
            generator = generator_of(self.seed, self.steps)
            chosen = torch.randint(len(wanted), (len(idle),), generator=generator)
            self.quantiser.codebook.weight[idle] = wanted[chosen]
            self.used.zero_()
        self.steps += 1


def train_robust(out_dir: Path, tokenizer_file: Path, data: str, steps: int = 4000, seed: int = 0) -> Path:
    """Teach a copy of an FSQ tokenizer's decoder to forgive wrong codes; write robust.safetensors and card.

    The encoder and so all codes stay as they are. Of each image a share of codes, from none to
    ``MOST_WRONG``, takes the next level up or down in one channel: what a network that draws several codes at
    once gets wrong (RobustTok's idea, arXiv 2503.08354, on a decoder alone).
    """
    started = Started.now()
    budget = TokenizerBudget(steps=steps, seed=seed, rate=1e-3)
    train, held_out = load_dataset(data, "train"), load_dataset(data, "held-out")
    tokenizer = load_tokenizer(tokenizer_file)
    if not isinstance(tokenizer, FSQTokenizer):
        raise CheckpointError(f"'{tokenizer_file}' is no FSQ tokenizer")
    check_size(train, tokenizer.image_size, f"tokenizer '{tokenizer_file}'")
    tokenizer.decoder.requires_grad_(True)
    generator = generator_of(seed, 1)

    def loss_of(images: Tensor) -> Tensor:
        with torch.no_grad():
            codes = neighbours(tokenizer.encode(images), tokenizer.quantiser, MOST_WRONG, generator)
            values = tokenizer.quantiser.values(codes)
        with taught_products():
            rebuilt = tokenizer.decoder(values)
        return pixel_loss(rebuilt.float(), images, budget)

    curve = fit_tokenizer(tokenizer, train, held_out, budget, loss_of)
    about = {
        "name": ROBUST,
        "kind": "finite scalar quantisation, decoder taught on codes of which some are wrong",
        "most_wrong": MOST_WRONG,
        "encoder_of_sha256": file_sha256(tokenizer_file),
        "environment": run_card(started, "cpu"),
        "command": f"pardec train {ROBUST} --data {data} --steps {steps} --seed {seed}",
    }
    header = {"kind": "fsq", **asdict(tokenizer.config)}
    path = out_dir / f"{ROBUST}.safetensors"
    return store_tokenizer(tokenizer, path, header, (train, held_out), budget, curve, about)


def neighbours(codes: Tensor, quantiser: Quantiser, most: float, generator: torch.Generator) -> Tensor:
    """Codes [B, h, w] of which a share, uniform in 0..most by image, is one level off in one channel."""
    batch, channels = len(codes), len(quantiser.levels)
    share = torch.rand(batch, 1, 1, generator=generator) * most
    wrong = torch.rand(codes.shape, generator=generator) < share
    channel = torch.randint(channels, codes.shape, generator=generator)
    up = torch.rand(codes.shape, generator=generator) < 0.5
    top, step = quantiser.levels[channel] - 1, quantiser.steps[channel]
    digit = codes // step % (top + 1)
    up = (up & (digit < top)) | (digit == 0)  # at the ends there is one neighbour only
    return torch.where(wrong, codes + torch.where(up, step, -step), codes)
