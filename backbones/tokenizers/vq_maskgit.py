"""MaskGIT's VQGAN (Chang et al. 2022, arXiv 2202.04200) in the form in which RAR uses its weights.

Convolutions alone, without attention; the distance of the lookup is the plain Euclidean one.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from backbones.checkpoints import KeyMap
from backbones.shapes import Measured, Shapes
from backbones.tokenizers.base import Tokenizer
from backbones.tokenizers.vq import (
    PublishedTokenizer,
    ResidualBranch,
    code_vectors,
    conv3,
    grid_of,
    multipliers,
    nearest_codes,
    norm,
)


@dataclass(frozen=True)
class VQMaskGITConfig:
    """Sizes; the defaults are the published ones.

    A level's channels are ``width`` times its entry in ``mult`` (full resolution first); every level but the
    last halves height and width. ``blocks`` are the residual blocks a level, and those in the middle.
    """

    mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    width: int = 128
    blocks: int = 2
    code_width: int = 256
    codes: int = 1024
    image_size: tuple[int, int] = (256, 256)


class Residual(ResidualBranch):
    """x plus the branch where the width stays. Where it changes, the block's input goes nowhere else: the
    1x1 convolution of the weights acts on the branch's own output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.nin_shortcut = nn.Conv2d(outputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        return branch + (x if self.nin_shortcut is None else self.nin_shortcut(branch))


def residuals(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    """Residual blocks in a row, of which the first changes the width."""
    return nn.Sequential(*(Residual(outputs if j else inputs, outputs) for j in range(blocks)))


class Down(nn.Module):
    """The residual blocks of one level of the encoder."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.block = residuals(inputs, outputs, blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Up(Down):
    """The residual blocks of one level of the decoder, then twice the height and width but at the top."""

    def __init__(self, inputs: int, outputs: int, blocks: int, rescales: bool) -> None:
        super().__init__(inputs, outputs, blocks)
        self.upsample_conv = conv3(outputs, outputs) if rescales else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        if self.upsample_conv is None:
            return x
        return self.upsample_conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Encoder(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to latents [B, code_width, h, w]."""

    def __init__(self, config: VQMaskGITConfig) -> None:
        super().__init__()
        widths = [config.width * mult for mult in config.mult]
        self.conv_in = conv3(3, config.width, bias=False)
        self.down = nn.ModuleList(
            Down(before, width, config.blocks)
            for before, width in zip([config.width, *widths], widths, strict=False)
        )
        self.mid = residuals(widths[-1], widths[-1], config.blocks)
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.code_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level, down in enumerate(self.down):
            x = down(x if level == 0 else F.avg_pool2d(x, 2))
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Latents [B, code_width, h, w] to images [B, 3, H, W] in [0, 1]; ``up[i]`` is level i, and runs last to
    first."""

    def __init__(self, config: VQMaskGITConfig) -> None:
        super().__init__()
        widths = [config.width * mult for mult in config.mult]
        self.conv_in = conv3(config.code_width, widths[-1])
        self.mid = residuals(widths[-1], widths[-1], config.blocks)
        self.up = nn.ModuleList(
            Up(below, width, config.blocks, level > 0)
            for level, (below, width) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = norm(widths[0])
        self.conv_out = conv3(widths[0], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VQMaskGIT(Tokenizer):
    """Takes images of any size that the stride divides; ``grid`` and ``image_size`` are those asked for.

    The weights speak of images in [0, 1]; callers see [-1, 1], as with every tokenizer. RAR turns a decoded
    image into bytes by truncation; the harness rounds, as for all, which is up to a level brighter.
    """

    def __init__(self, config: VQMaskGITConfig) -> None:
        super().__init__()
        self.config = config
        self.codes = config.codes
        self.image_size = config.image_size
        self.grid = grid_of(config.image_size, 2 ** (len(config.mult) - 1))
        self.encoder = Encoder(config)
        self.codebook = nn.Embedding(config.codes, config.code_width)
        self.decoder = Decoder(config)

    def vectors(self) -> Tensor:
        return self.codebook.weight

    def encode(self, images: Tensor) -> Tensor:
        return nearest_codes(self.encoder((images + 1) / 2), self.codebook.weight)

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(code_vectors(codes, self.codebook.weight)) * 2 - 1


def _measure(file: Shapes) -> Measured:
    width = file.size(("encoder.conv_in.weight", 0), ("decoder.norm_out.weight", 0))
    names = {
        "channel_mult": multipliers(file, "encoder.down.{i}.block", width),
        "hidden_channels": width,
        "num_res_blocks": file.layers(
            "encoder.mid.{i}.norm1.weight", "encoder.down.0.block.{i}.norm1.weight"
        ),
        "z_channels": file.size(("quantize.embedding.weight", 1), ("encoder.conv_out.weight", 0)),
        "codebook_size": file.size(("quantize.embedding.weight", 0), otherwise=1024),
    }
    return Measured(names)


PUBLISHED = PublishedTokenizer(
    family="vq-maskgit",
    keys=KeyMap(
        {
            "codebook.weight": "quantize.embedding.weight",
            "encoder.{rest}": "encoder.{rest}",
            "decoder.{rest}": "decoder.{rest}",
        }
    ),
    measure=_measure,
    tokenizer=VQMaskGIT,
    config=VQMaskGITConfig,
    names={
        "channel_mult": "mult",
        "hidden_channels": "width",
        "num_res_blocks": "blocks",
        "z_channels": "code_width",
        "codebook_size": "codes",
    },
)
