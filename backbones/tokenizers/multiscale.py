"""VAR's multi-scale residual tokenizer (Tian et al., arXiv 2404.02905): an image as maps of codes.

Maps go from small to large; each codes what the smaller ones left over, and one code book serves all. The
quantiser is the published one; the encoder and decoder around it are those of the controlled tier.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.tokenizers.base import Tokenizer, check_latents
from backbones.tokenizers.fsq import Residual
from backbones.tokenizers.vq import code_vectors, conv3, nearest_codes

SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
_SIDES = {
    16: SIDES,
    32: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    64: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
"""As published for 256, 512 and 1024 pixels."""


def sides_for(last: int) -> tuple[int, ...]:
    """The published sides whose last one is ``last``, else those for 16 that are smaller, and ``last``."""
    return _SIDES.get(last) or (*(side for side in SIDES if side < last), last)


def filter_of(scale: int, scales: int, filters: int) -> int:
    """Which residual convolution follows a scale: that of the nearest of evenly spread ticks, ties as numpy
    has it."""
    margin = 1 / (3 * filters) if filters == 4 else 1 / (2 * filters)
    ticks = np.linspace(margin, 1 - margin, filters)
    return int(np.argmin(np.abs(ticks - scale / max(scales - 1, 1))))


class ScaleFilter(nn.Conv2d):
    """(1 - share) x + share conv(x), 3 x 3: smooths an enlarged map."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__(width, width, 3, padding=1)
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 - self.share) + super().forward(x) * self.share


class MultiScaleQuantiser(nn.Module):
    """A map of features [B, c, S, S] as codes [B, L]: scale after scale, raster inside a scale.

    share: of the convolution in a residual filter. unit: codes are those of the largest cosine, not of the
    smallest distance.
    """

    def __init__(
        self,
        codes: int,
        width: int,
        sides: tuple[int, ...] = SIDES,
        filters: int = 4,
        share: float = 0.5,
        unit: bool = False,
    ) -> None:
        super().__init__()
        self.sides, self.width, self.unit = sides, width, unit
        self.codebook = nn.Embedding(codes, width)
        self.filters = nn.ModuleList(ScaleFilter(width, share) for _ in range(filters))
        self.filter_of = tuple(filter_of(scale, len(sides), filters) for scale in range(len(sides)))

    @property
    def places(self) -> int:
        return sum(side * side for side in self.sides)

    def maps(self, codes: Tensor) -> list[Tensor]:
        """Codes [B, L] by scale, [B, s, s] each."""
        parts = codes.split([side * side for side in self.sides], dim=1)
        return [part.unflatten(1, (side, side)) for part, side in zip(parts, self.sides, strict=True)]

    def enlarged(self, vectors: Tensor, scale: int) -> Tensor:
        """What code vectors [B, c, s, s] of a scale add to the map of features, [B, c, S, S]."""
        last = self.sides[-1]
        if vectors.shape[-1] != last:
            vectors = F.interpolate(vectors, size=(last, last), mode="bicubic")
        return self.filters[self.filter_of[scale]](vectors)

    def shrunk(self, features: Tensor, scale: int) -> Tensor:
        """A map [B, c, S, S] averaged over areas to the side of a scale."""
        side = self.sides[scale]
        return features if side == self.sides[-1] else F.interpolate(features, size=(side, side), mode="area")

    def steps(self, features: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Scale by scale: what was asked for [B, c, s, s], its codes [B, s, s], their vectors, and the sum of
        all scales so far [B, c, S, S]."""
        rest, total, looked_up = features, torch.zeros_like(features), self.codebook.weight
        if self.unit:
            looked_up = F.normalize(looked_up, dim=1)
        for scale in range(len(self.sides)):
            wanted = self.shrunk(rest, scale)
            codes = nearest_codes(F.normalize(wanted, dim=1) if self.unit else wanted, looked_up)
            vectors = code_vectors(codes, self.codebook.weight)
            part = self.enlarged(vectors, scale)
            total, rest = total + part, rest - part
            yield wanted, codes, vectors, total

    def encode(self, features: Tensor) -> Tensor:
        return torch.cat([codes.flatten(1) for _, codes, _, _ in self.steps(features)], dim=1)

    def decode(self, codes: Tensor, written: Tensor | None = None) -> Tensor:
        """Codes [B, L] to the map of features [B, c, S, S]; scales of which nothing is ``written`` [B, L] add
        nothing to it."""
        total = torch.zeros((), device=codes.device)
        for scale, part in enumerate(self.maps(codes)):
            added = self.enlarged(code_vectors(part, self.codebook.weight), scale)
            if written is not None:
                added = added * self.maps(written)[scale].flatten(1).any(1)[:, None, None, None]
            total = total + added
        return total

    def inputs(self, codes: Tensor) -> Tensor:
        """What a network is fed for scales 1 and on, [B, L - 1, c]: the sum of the scales before, shrunk."""
        total: Tensor | int = 0
        fed = []
        for scale, part in enumerate(self.maps(codes)[:-1]):
            total = total + self.enlarged(code_vectors(part, self.codebook.weight), scale)
            fed.append(self.shrunk(total, scale + 1).flatten(2).transpose(1, 2))
        return torch.cat(fed, dim=1)


def lend(quantiser: MultiScaleQuantiser, source: MultiScaleQuantiser | None) -> None:
    """Make the weights of ``quantiser`` float32 buffers that no state dict holds, with the values of a
    tokenizer's and their shares, or fixed ones. ValueError where those are of other shapes."""
    generator = torch.Generator().manual_seed(0)
    values = {} if source is None else source.state_dict()
    for prefix, owner in quantiser.named_modules():
        for name in ("weight", "bias"):
            held = getattr(owner, name, None)
            if held is None:
                continue
            key = f"{prefix}.{name}"
            new = torch.empty(held.shape, dtype=torch.float32, device=held.device)
            if key in values:
                if values[key].shape != held.shape:
                    raise ValueError(f"'{key}' is {list(values[key].shape)}, expected {list(held.shape)}")
                new.copy_(values[key])
            elif not held.is_meta:
                spread = 1.0 if prefix == "codebook" else 0.2
                new.copy_(torch.randn(held.shape, generator=generator) * spread)
            owner._parameters.pop(name, None)
            owner.register_buffer(name, new, persistent=False)
    if source is not None:
        for mine, theirs in zip(quantiser.filters, source.filters, strict=True):
            mine.share = theirs.share


@dataclass(frozen=True)
class MultiScaleConfig:
    codes: int = 64
    width: int = 8
    """Of code vectors."""
    sides: tuple[int, ...] = SIDES
    image_size: tuple[int, int] = (32, 32)
    encoder_width: int = 128
    decoder_width: int = 64
    decoder_blocks: int = 2

    def __post_init__(self) -> None:
        last = self.sides[-1]
        if list(self.sides) != sorted(set(self.sides)):
            raise ValueError(f"sides {self.sides} must ascend")
        if self.image_size[0] != self.image_size[1] or self.image_size[0] % last:
            raise ValueError(f"image size {self.image_size} is no square that side {last} divides")
        if self.image_size[0] // last != 2:
            raise ValueError(f"image size {self.image_size} must be twice the last side, {last}")


class MultiScaleTokenizer(Tokenizer):
    """Square images to codes [B, L] of all scales and back; ``grid`` is that of the largest scale."""

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        self.config = config
        self.codes, self.image_size = config.codes, config.image_size
        self.grid = (config.sides[-1], config.sides[-1])
        self.shape = (sum(side * side for side in config.sides),)
        patch = config.image_size[0] // config.sides[-1]
        narrow, wide = config.encoder_width, config.decoder_width
        self.encoder = nn.Sequential(
            nn.Conv2d(3, narrow, patch, stride=patch),
            nn.SiLU(),
            nn.Conv2d(narrow, narrow, 1),
            nn.SiLU(),
            nn.Conv2d(narrow, config.width, 1),
        )
        self.quantiser = MultiScaleQuantiser(config.codes, config.width, config.sides)
        self.decoder = nn.Sequential(
            conv3(config.width, wide),
            *(Residual(wide) for _ in range(config.decoder_blocks)),
            nn.SiLU(),
            conv3(wide, 3 * patch * patch),
            nn.PixelShuffle(patch),  # [B, 3, H, W]
        )

    @property
    def code_shape(self) -> tuple[int, ...]:
        return self.shape

    def taught(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, c, S, S] to differentiable reconstructions of the images [B, 3, H, W], and the mean
        squared distance of every scale's sum from the features, both ways (commitment: a quarter)."""
        distance, total = features.new_zeros(()), features
        for _, _, _, total in self.quantiser.steps(features.detach()):
            distance = distance + F.mse_loss(total, features.detach())
            distance = distance + 0.25 * F.mse_loss(total.detach(), features)
        straight = features + (total - features).detach()
        return self.decoder(straight).float(), distance / len(self.config.sides)

    def encode(self, images: Tensor) -> Tensor:
        features = self.encoder(images).float()
        check_latents(features)
        return self.quantiser.encode(features)

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantiser.decode(codes))

    def decode_written(self, codes: Tensor, written: Tensor) -> Tensor:
        return self.decoder(self.quantiser.decode(codes, written))
