"""VAR's VQVAE (Tian et al., arXiv 2404.02905): maps of codes from small to large, one code book for all.

The quantiser is the one of ``multiscale``; encoder and decoder are LDM's of stride 16, with attention on the
lowest resolution only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from backbones.checkpoints import KeyMap, load_published
from backbones.shapes import Measured, Shapes
from backbones.tokenizers.base import Tokenizer, check_latents
from backbones.tokenizers.multiscale import MultiScaleQuantiser, sides_for
from backbones.tokenizers.vq import PublishedTokenizer, conv3, grid_of, multipliers, norm
from backbones.tokenizers.vq_llamagen import Downsample, Residual, Upsample


@dataclass(frozen=True)
class VQVARConfig:
    """Sizes; the defaults are the published ones.

    A level's channels are ``width`` times its entry in ``mult`` (full resolution first); every level but the
    last halves height and width. ``blocks`` are the encoder's residual blocks a level. ``sides`` of the maps;
    empty for the published ones of the image's size.
    """

    mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    width: int = 160
    blocks: int = 2
    codes: int = 4096
    code_width: int = 32
    share: float = 0.5
    """Of the convolution in a residual filter."""
    unit: bool = False
    """Codes are looked up by cosine."""
    sides: tuple[int, ...] = ()
    image_size: tuple[int, int] = (256, 256)


class Attention(nn.Module):
    """One head, queries, keys and values by one convolution; every place attends to all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1)  # [B, 1, h w, 3 c]
        mixed = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        return x + self.proj_out(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))


class Level(nn.Module):
    """Residual blocks of one width, each followed by attention where ``attends``, then a change of scale."""

    def __init__(self, inputs: int, outputs: int, blocks: int, attends: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(outputs if j else inputs, outputs) for j in range(blocks))
        self.attn = nn.ModuleList(Attention(outputs) for _ in range(blocks if attends else 0))
        self.downsample: nn.Module | None = None
        self.upsample: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        for j, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[j](x)
        rescale = self.downsample or self.upsample
        return x if rescale is None else rescale(x)


class Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = Residual(width, width)
        self.attn_1 = Attention(width)
        self.block_2 = Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Images [B, 3, H, W] to features [B, code_width, h, w]."""

    def __init__(self, config: VQVARConfig) -> None:
        super().__init__()
        widths = [config.width * mult for mult in config.mult]
        last = len(widths) - 1
        self.conv_in = conv3(3, config.width)
        self.down = nn.ModuleList(
            Level(before, width, config.blocks, level == last)
            for level, (before, width) in enumerate(zip([config.width, *widths], widths, strict=False))
        )
        for level, width in zip(self.down[:-1], widths, strict=False):
            level.downsample = Downsample(width)
        self.mid = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = conv3(widths[-1], config.code_width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Features [B, code_width, h, w] to images [B, 3, H, W]; ``up[i]`` is level i, and runs last to first."""

    def __init__(self, config: VQVARConfig) -> None:
        super().__init__()
        widths = [config.width * mult for mult in config.mult]
        last = len(widths) - 1
        self.conv_in = conv3(config.code_width, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Level(below, width, config.blocks + 1, level == last)
            for level, (below, width) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        for level, width in zip(self.up[1:], widths[1:], strict=True):
            level.upsample = Upsample(width)
        self.norm_out = norm(widths[0])
        self.conv_out = conv3(widths[0], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VQVAR(Tokenizer):
    """Square images to codes [B, L] of all scales and back; ``grid`` is that of the largest scale."""

    def __init__(self, config: VQVARConfig) -> None:
        super().__init__()
        self.grid = grid_of(config.image_size, 2 ** (len(config.mult) - 1))
        sides = config.sides or sides_for(self.grid[0])
        if self.grid != (sides[-1], sides[-1]):
            raise ValueError(
                f"image size {config.image_size} gives a grid {self.grid}, the last side is {sides[-1]}"
            )
        self.config, self.codes, self.image_size = config, config.codes, config.image_size
        self.encoder = Encoder(config)
        self.quant_conv = conv3(config.code_width, config.code_width)
        self.quantiser = MultiScaleQuantiser(
            config.codes, config.code_width, sides, share=config.share, unit=config.unit
        )
        self.post_quant_conv = conv3(config.code_width, config.code_width)
        self.decoder = Decoder(config)

    @property
    def code_shape(self) -> tuple[int, ...]:
        return (self.quantiser.places,)

    def encode(self, images: Tensor) -> Tensor:
        features = self.quant_conv(self.encoder(images))
        check_latents(features)
        return self.quantiser.encode(features)

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(self.quantiser.decode(codes)))

    def decode_written(self, codes: Tensor, written: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(self.quantiser.decode(codes, written)))


def _measure(file: Shapes) -> Measured:
    """Everything shows but the filters' share and the sides."""
    width = file.size(("encoder.conv_in.weight", 0), ("decoder.norm_out.weight", 0))
    names = {
        "ch": width,
        "ch_mult": multipliers(file, "encoder.down.{i}.block", width),
        "num_res_blocks": file.layers(
            "encoder.down.0.block.{i}.norm1.weight", "encoder.down.0.block.{i}.conv1.weight"
        ),
        "V": file.size(("quantize.embedding.weight", 0), otherwise=4096),
        "Cvae": file.size(
            ("quantize.embedding.weight", 1), ("quant_conv.weight", 0), ("quant_conv.weight", 1)
        ),
    }
    return Measured(names)


PUBLISHED = PublishedTokenizer(
    family="vq-var",
    keys=KeyMap(
        {
            "quantiser.codebook.weight": "quantize.embedding.weight",
            "quantiser.filters.{i}.{rest}": "quantize.quant_resi.qresi_ls.{i}.{rest}",
            "quant_conv.{rest}": "quant_conv.{rest}",
            "post_quant_conv.{rest}": "post_quant_conv.{rest}",
            "encoder.{rest}": "encoder.{rest}",
            "decoder.{rest}": "decoder.{rest}",
        },
        ignored=(r"quantize\.ema_vocab_hit_SV",),  # how often training met each code
    ),
    measure=_measure,
    tokenizer=VQVAR,
    config=VQVARConfig,
    names={
        "ch": "width",
        "ch_mult": "mult",
        "num_res_blocks": "blocks",
        "V": "codes",
        "Cvae": "code_width",
        "quant_resi": "share",
        "using_znorm": "unit",
        "patch_nums": "sides",
    },
)


def load_quantiser(
    settings: Mapping[str, Any], state: Mapping[str, Tensor], source: str
) -> MultiScaleQuantiser:
    """The quantiser alone, frozen, of a file's hyper-parameters and of what its state dict has under
    ``quantize.``; source names the file in errors."""
    config, start = PUBLISHED.configured(settings), "quantiser."
    made = MultiScaleQuantiser(
        config.codes, config.code_width, config.sides, share=config.share, unit=config.unit
    )
    names = {ours: theirs for ours, theirs in PUBLISHED.keys.names.items() if ours.startswith(start)}
    keys = KeyMap(
        {ours.removeprefix(start): theirs for ours, theirs in names.items()}, PUBLISHED.keys.ignored
    )
    of_it = {key: tensor for key, tensor in state.items() if key.startswith("quantize.")}
    load_published(made, of_it, keys, source)
    return made.requires_grad_(False)
