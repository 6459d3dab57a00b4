"""What naive tokenizers share: the layers of convolutional encoders and decoders, and the lookup of codes.

From the specifications alone, in double precision. A layer draws its weights when it first meets their keys,
so that the passes through an encoder and a decoder say what the state dict is.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.naive.parts import normal, normalised, seeded, silu

MARGIN = 1e-4
"""Of squared distances: how much nearer a code must be than all others, for single precision to find it."""
ROUNDING = 1e-12
"""Of squared distances in double precision that are equal."""


class DrawnWeights(dict[str, Tensor]):
    """A state dict in single precision whose tensors are drawn where they are first asked for."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = seeded(seed)

    def drawn(self, key: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> Tensor:
        if key not in self:
            self[key] = mean + normal(self.generator, *shape, scale=scale)
        assert self[key].shape == shape, key
        return self[key].double()


def convolution(
    weights: DrawnWeights,
    name: str,
    x: Tensor,
    outputs: int,
    size: int = 3,
    padding: int | None = None,
    stride: int = 1,
    bias: bool = True,
) -> Tensor:
    """x [B, c, h, w] to [B, outputs, h, w]; without another padding or stride height and width stay."""
    inputs = x.shape[1]
    kernel = weights.drawn(f"{name}.weight", outputs, inputs, size, size, scale=1.2 / (size * inputs**0.5))
    offset = weights.drawn(f"{name}.bias", outputs, scale=0.2) if bias else None
    return F.conv2d(x, kernel, offset, stride, size // 2 if padding is None else padding)


def group_norm(weights: DrawnWeights, name: str, x: Tensor) -> Tensor:
    """32 groups of the channels of x [B, c, h, w], each with its places normalised as one."""
    unit = normalised(x.reshape(len(x), 32, -1), 1e-6)
    scale = weights.drawn(f"{name}.weight", x.shape[1], scale=0.2, mean=1.0)
    offset = weights.drawn(f"{name}.bias", x.shape[1], scale=0.2)
    return unit.reshape(x.shape) * scale[:, None, None] + offset[:, None, None]


def residual_branch(weights: DrawnWeights, name: str, x: Tensor, outputs: int, bias: bool = True) -> Tensor:
    x = silu(group_norm(weights, f"{name}.norm1", x))
    x = convolution(weights, f"{name}.conv1", x, outputs, bias=bias)
    x = silu(group_norm(weights, f"{name}.norm2", x))
    return convolution(weights, f"{name}.conv2", x, outputs, bias=bias)


def residual_block(weights: DrawnWeights, name: str, x: Tensor, outputs: int) -> Tensor:
    """A change of width changes the input by a convolution of single places."""
    branch = residual_branch(weights, name, x, outputs)
    if x.shape[1] != outputs:
        x = convolution(weights, f"{name}.nin_shortcut", x, outputs, size=1)
    return x + branch


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One head; every place of q, k, v [B, c, h, w] sees all places."""
    scores = torch.einsum("bci,bcj->bij", q.flatten(2), k.flatten(2)) / math.sqrt(q.shape[1])
    return torch.einsum("bij,bcj->bci", scores.softmax(dim=-1), v.flatten(2)).reshape(q.shape)


def halve(weights: DrawnWeights, name: str, x: Tensor) -> Tensor:
    """One row of zeros below and one column to the right, then every second place of a convolution."""
    padded = F.pad(x, (0, 1, 0, 1))
    return convolution(weights, name, padded, x.shape[1], padding=0, stride=2)


def double(weights: DrawnWeights, name: str, x: Tensor) -> Tensor:
    """Every place four times, then a convolution."""
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return convolution(weights, name, repeated, x.shape[1])


def output(weights: DrawnWeights, name: str, x: Tensor, outputs: int, size: int = 3) -> Tensor:
    x = silu(group_norm(weights, f"{name}.norm_out", x))
    return convolution(weights, f"{name}.conv_out", x, outputs, size)


Attention = Callable[[DrawnWeights, str, Tensor], Tensor]
"""Of all places of x [B, c, h, w], by the weights under a name."""
Levels = Sequence[tuple[str, int]]
"""The name and the width of each level, in the order in which an image or its features pass them."""


class Layout(NamedTuple):
    """What tokenizers after latent diffusion's (arXiv 2112.10752) have each in their own way.

    residual: the name of a level's residual blocks. middle: the names, in the order of their passes, of the
    residual block, the attention and the residual block on the side of the codes.
    """

    attention: Attention
    residual: str
    middle: tuple[str, str, str]


def pass_level(
    layout: Layout, weights: DrawnWeights, name: str, x: Tensor, width: int, blocks: int, attends: bool
) -> Tensor:
    for index in range(blocks):
        x = residual_block(weights, f"{name}.{layout.residual}.{index}", x, width)
        if attends:
            x = layout.attention(weights, f"{name}.attn.{index}", x)
    return x


def pass_middle(layout: Layout, weights: DrawnWeights, name: str, x: Tensor) -> Tensor:
    before, attention, behind = (f"{name}.mid.{part}" for part in layout.middle)
    x = residual_block(weights, before, x, x.shape[1])
    x = layout.attention(weights, attention, x)
    return residual_block(weights, behind, x, x.shape[1])


def encoder(
    layout: Layout,
    weights: DrawnWeights,
    image: Tensor,
    width: int,
    levels: Levels,
    blocks: int,
    outputs: int,
) -> Tensor:
    """Features [B, outputs, h, w] of an image [B, 3, H, W]; the last and lowest level attends."""
    x = convolution(weights, "encoder.conv_in", image, width)
    for level, (name, width_of_level) in enumerate(levels, start=1):
        lowest = level == len(levels)
        x = pass_level(layout, weights, name, x, width_of_level, blocks, attends=lowest)
        if not lowest:
            x = halve(weights, f"{name}.downsample.conv", x)
    return output(weights, "encoder", pass_middle(layout, weights, "encoder", x), outputs)


def decoder(layout: Layout, weights: DrawnWeights, features: Tensor, levels: Levels, blocks: int) -> Tensor:
    """The image [B, 3, H, W], not clamped, of features [B, c, h, w]; the first and lowest level attends."""
    x = convolution(weights, "decoder.conv_in", features, levels[0][1])
    x = pass_middle(layout, weights, "decoder", x)
    for level, (name, width) in enumerate(levels, start=1):
        x = pass_level(layout, weights, name, x, width, blocks, attends=level == 1)
        if level < len(levels):
            x = double(weights, f"{name}.upsample.conv", x)
    return output(weights, "decoder", x, 3)


def nearest_codes(features: Tensor, codebook: Tensor) -> Tensor:
    """The row of the codebook [K, c] at the smallest squared distance of features [B, c, h, w]: [B, h, w].

    The first of rows that are equally near.
    """
    vectors = features.movedim(1, -1)  # [B, h, w, c]
    distances = (vectors.unsqueeze(-2) - codebook).square().sum(dim=-1)  # [B, h, w, K]
    smallest = distances.amin(dim=-1, keepdim=True)
    nearest = distances <= smallest + ROUNDING
    others = distances.masked_fill(nearest, math.inf)
    assert (others > smallest + MARGIN).all(), "single precision may find other codes; choose another seed"
    return nearest.int().argmax(dim=-1)


def code_vectors(codes: Tensor, codebook: Tensor) -> Tensor:
    """Rows of the codebook [K, c] by codes [B, h, w]: [B, c, h, w]."""
    return codebook[codes].movedim(-1, 1)


def unit_vectors(vectors: Tensor, dim: int) -> Tensor:
    return vectors / vectors.square().sum(dim=dim, keepdim=True).sqrt().clamp(min=1e-12)


def random_image(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """[B, 3, H, W] between -1 and 1."""
    return torch.rand(batch, 3, height, width, generator=generator) * 2 - 1
