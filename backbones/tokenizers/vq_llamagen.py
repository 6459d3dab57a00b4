"""LlamaGen's VQ tokenizer (Sun et al. 2024, arXiv 2406.06525, section 3.1), which PAR, LPD, ARPG and RandAR
use with the same weights.

A convolutional encoder with attention at its deepest level, a lookup by cosine in a code book of few
dimensions, and a decoder that mirrors the encoder with one residual block more a level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from backbones.checkpoints import KeyMap
from backbones.tokenizers.base import Tokenizer
from backbones.tokenizers.vq import (
    PublishedTokenizer,
    ResidualBranch,
    code_vectors,
    conv3,
    grid_of,
    nearest_codes,
    norm,
)


@dataclass(frozen=True)
class VQLlamaGenConfig:
    """Sizes; the defaults are VQ-16's.

    A level's channels are ``width`` times its entry in ``encoder_mult`` or ``decoder_mult`` (full resolution
    first); every level but the last halves height and width. ``blocks`` are the encoder's residual blocks a
    level. ``code_width`` is the dimension of a code vector, ``latent_width`` of what becomes one.
    """

    encoder_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    width: int = 128
    blocks: int = 2
    latent_width: int = 256
    codes: int = 16384
    code_width: int = 8
    normalised: bool = True
    """Whether latents and code vectors are scaled to unit length, which makes the lookup one by cosine."""
    image_size: tuple[int, int] = (256, 256)


class Residual(ResidualBranch):
    """x, through a 1x1 convolution where the width changes, plus the branch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=True)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.nin_shortcut(x) + self.branch(x)


class Attention(nn.Module):
    """One head; every place attends to all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (
            project(normed).flatten(2).transpose(1, 2).unsqueeze(1)  # [B, 1, h w, c]
            for project in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halves height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only, as the weights were trained


class Upsample(nn.Module):
    """Doubles height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one width, each followed by attention where ``attends``, then a change of scale."""

    def __init__(
        self, inputs: int, outputs: int, blocks: int, attends: bool, rescale: nn.Module | None
    ) -> None:
        super().__init__()
        self.res = nn.ModuleList(Residual(outputs if j else inputs, outputs) for j in range(blocks))
        self.attn = nn.ModuleList(Attention(outputs) for _ in range(blocks if attends else 0))
        self.rescale = rescale

    def forward(self, x: Tensor) -> Tensor:
        for j, block in enumerate(self.res):
            x = block(x)
            if self.attn:
                x = self.attn[j](x)
        return x if self.rescale is None else self.rescale(x)


def middle(width: int) -> nn.Sequential:
    return nn.Sequential(Residual(width, width), Attention(width), Residual(width, width))


class Encoder(nn.Module):
    """Images [B, 3, H, W] to latents [B, latent_width, h, w]."""

    def __init__(self, config: VQLlamaGenConfig) -> None:
        super().__init__()
        widths = [config.width * mult for mult in config.encoder_mult]
        last = len(widths) - 1
        self.conv_in = conv3(3, config.width)
        self.conv_blocks = nn.ModuleList(
            Level(before, width, config.blocks, level == last, Downsample(width) if level < last else None)
            for level, (before, width) in enumerate(zip([config.width, *widths], widths, strict=False))
        )
        self.mid = middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = conv3(widths[-1], config.latent_width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.conv_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latents [B, latent_width, h, w] to images [B, 3, H, W]; blocks run from the deepest level up."""

    def __init__(self, config: VQLlamaGenConfig) -> None:
        super().__init__()
        widths = [config.width * mult for mult in reversed(config.decoder_mult)]
        last = len(widths) - 1
        self.conv_in = conv3(config.latent_width, widths[0])
        self.mid = middle(widths[0])
        self.conv_blocks = nn.ModuleList(
            Level(before, width, config.blocks + 1, block == 0, Upsample(width) if block < last else None)
            for block, (before, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
        )
        self.norm_out = norm(widths[-1])
        self.conv_out = conv3(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for block in self.conv_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VQLlamaGen(Tokenizer):
    """Takes images of any size that the stride divides; ``grid`` and ``image_size`` are those asked for.

    The authors turn a decoded image into bytes by trunc(127.5 x + 128): the harness's rounding but for ties.
    """

    def __init__(self, config: VQLlamaGenConfig) -> None:
        super().__init__()
        self.config = config
        self.codes = config.codes
        self.image_size = config.image_size
        self.grid = grid_of(config.image_size, 2 ** (len(config.encoder_mult) - 1))
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.latent_width, config.code_width, 1)
        self.codebook = nn.Embedding(config.codes, config.code_width)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent_width, 1)
        self.decoder = Decoder(config)

    def vectors(self) -> Tensor:
        """What stands for each code [K, code_width]; the rows of a file need not be of unit length."""
        rows = self.codebook.weight
        return F.normalize(rows, dim=1) if self.config.normalised else rows

    def encode(self, images: Tensor) -> Tensor:
        latents = self.quant_conv(self.encoder(images))
        if self.config.normalised:
            latents = F.normalize(latents, dim=1)
        return nearest_codes(latents, self.vectors())

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(code_vectors(codes, self.vectors())))


def _build(names: Mapping[str, Any], image_size: tuple[int, int]) -> VQLlamaGen:
    return VQLlamaGen(
        VQLlamaGenConfig(
            encoder_mult=tuple(names["encoder_ch_mult"]),
            decoder_mult=tuple(names["decoder_ch_mult"]),
            width=names["ch"],
            blocks=names["num_res_blocks"],
            latent_width=names["z_channels"],
            codes=names["codebook_size"],
            code_width=names["codebook_embed_dim"],
            normalised=names["codebook_l2_norm"],
            image_size=image_size,
        )
    )


PUBLISHED = PublishedTokenizer(
    family="vq-llamagen",
    keys=KeyMap(
        {
            "codebook.weight": "quantize.embedding.weight",
            "quant_conv.{rest}": "quant_conv.{rest}",
            "post_quant_conv.{rest}": "post_quant_conv.{rest}",
            "encoder.conv_blocks.{i}.rescale.{rest}": "encoder.conv_blocks.{i}.downsample.{rest}",
            "decoder.conv_blocks.{i}.rescale.{rest}": "decoder.conv_blocks.{i}.upsample.{rest}",
            "encoder.{rest}": "encoder.{rest}",
            "decoder.{rest}": "decoder.{rest}",
        },
        ignored=(r"quantize\.codebook_used",),  # the last ids seen in training, for its log
    ),
    build=_build,
    defaults={
        "ch": 128,
        "num_res_blocks": 2,
        "encoder_ch_mult": (1, 1, 2, 2, 4),
        "decoder_ch_mult": (1, 1, 2, 2, 4),
        "z_channels": 256,
        "codebook_size": 16384,
        "codebook_embed_dim": 8,
        "codebook_l2_norm": True,
    },
)
