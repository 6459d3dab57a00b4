"""Finite scalar quantisation (Mentzer et al. 2023, arXiv 2309.15505) between a patch encoder and a small
convolutional decoder.

A code sees its own patch only. With a wider field every code carries its neighbours' details: reconstructions
gain 4 dB, but the codes come close to noise (5.9 of 6 bits each) and no small network learns to predict them.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.tokenizers.base import Tokenizer, check_latents


@dataclass(frozen=True)
class FSQConfig:
    """``levels`` are the values per channel; their product is the number of codes."""

    levels: tuple[int, ...] = (8, 8)
    patch: Literal[2, 4] = 4
    """Pixels per code along each axis."""
    image_size: tuple[int, int] = (32, 32)
    encoder_width: int = 128
    decoder_width: int = 32
    decoder_blocks: int = 2

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"levels {self.levels} must be two or more per channel")
        if self.patch not in (2, 4):
            raise ValueError(f"patch {self.patch} must be 2 or 4 pixels")
        if any(side % self.patch for side in self.image_size):
            raise ValueError(f"image size {self.image_size} is not divisible by {self.patch}")


class Quantiser(nn.Module):
    """Rounds each bounded channel to one of its levels; gradients pass straight through the rounding."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        steps = [prod(levels[:channel]) for channel in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("steps", torch.tensor(steps), persistent=False)
        self.levels: Tensor
        self.steps: Tensor

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, c, h, w] to quantised values in [-1, 1] of that shape and int64 codes [B, h, w]."""
        top = (self.levels - 1).view(1, -1, 1, 1)
        bounded = (latents.tanh() + 1) / 2 * top
        digits = bounded.detach().round()
        quantised = (bounded + (digits - bounded).detach()) / top * 2 - 1
        return quantised, (digits.long() * self.steps.view(1, -1, 1, 1)).sum(1)

    def values(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] to quantised values [B, c, h, w]."""
        digits = codes.unsqueeze(1) // self.steps.view(1, -1, 1, 1) % self.levels.view(1, -1, 1, 1)
        return digits.float() / (self.levels - 1).view(1, -1, 1, 1) * 2 - 1


class Residual(nn.Module):
    """Two convolutions around a skip; the identity at initialisation. No normalisation over the image, so a
    code depends on its neighbourhood alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


def _doubling(inputs: int, outputs: int, wanted: bool) -> tuple[nn.Module, ...]:
    """Layers from [B, inputs, h, w] to [B, outputs, 2h, 2w]; none where not ``wanted``."""
    if not wanted:
        return ()
    return (nn.Conv2d(inputs, 4 * outputs, 1), nn.PixelShuffle(2), Residual(outputs), nn.SiLU())


class FSQTokenizer(Tokenizer):
    """Images of patch h x patch w pixels to h x w codes and back."""

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        self.codes = prod(config.levels)
        self.image_size = config.image_size
        patch = config.patch
        self.grid = (config.image_size[0] // patch, config.image_size[1] // patch)
        narrow, wide = config.encoder_width, config.decoder_width
        self.encoder = nn.Sequential(
            nn.Conv2d(3, narrow, patch, stride=patch),
            nn.SiLU(),
            nn.Conv2d(narrow, narrow, 1),
            nn.SiLU(),
            nn.Conv2d(narrow, len(config.levels), 1),
        )
        self.quantiser = Quantiser(config.levels)
        self.decoder = nn.Sequential(
            nn.Conv2d(len(config.levels), 2 * wide, 3, padding=1),
            *(Residual(2 * wide) for _ in range(config.decoder_blocks)),
            nn.SiLU(),
            *_doubling(2 * wide, wide, patch == 4),
            nn.Conv2d(wide if patch == 4 else 2 * wide, 4 * 3, 3, padding=1),
            nn.PixelShuffle(2),  # [B, 3, H, W]
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] to differentiable reconstructions of that shape and the unbounded latents
        [B, c, h, w] behind them."""
        latents = self.encoder(images).float()
        return self.decoder(self.quantiser(latents)[0]).float(), latents

    def vectors(self) -> Tensor:
        codes = torch.arange(self.codes, device=self.quantiser.levels.device)
        return self.quantiser.values(codes[None, None])[0, :, 0].T.contiguous()  # [K, c]

    def encode(self, images: Tensor) -> Tensor:
        latents = self.encoder(images).float()
        check_latents(latents)
        return self.quantiser(latents)[1]

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantiser.values(codes))
