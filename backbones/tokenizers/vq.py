"""What the published vector-quantising tokenizers share: convolutions, code-book lookup, first weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.checkpoints import KeyMap
from backbones.shapes import Measured, Shapes
from backbones.tokenizers.base import Tokenizer, check_latents

NORM_GROUPS = 32
NORM_EPS = 1e-6
LOOKUP_ROWS = 1024
"""Latent vectors whose distances to the whole code book are in memory at a time."""


def norm(width: int) -> nn.GroupNorm:
    """Group norm; ``width`` is a multiple of 32."""
    return nn.GroupNorm(NORM_GROUPS, width, eps=NORM_EPS)


def conv3(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class ResidualBranch(nn.Module):
    """Norm, swish and convolution, twice; subclasses add the way around it, in which the papers differ."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.norm1 = norm(inputs)
        self.conv1 = conv3(inputs, outputs, bias)
        self.norm2 = norm(outputs)
        self.conv2 = conv3(outputs, outputs, bias)

    def branch(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        x = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(x)))


def nearest_codes(latents: Tensor, codebook: Tensor) -> Tensor:
    """The code of the smallest squared distance, the first of equal ones.

    latents: [B, c, h, w]; codebook: [K, c]. Returns int64 [B, h, w]. FloatingPointError for latents that are
    no numbers.
    """
    check_latents(latents)
    batch, _, height, width = latents.shape
    vectors = latents.permute(0, 2, 3, 1).flatten(0, 2)  # [B h w, c]
    squares = codebook.square().sum(1)  # [K]
    parts = []
    for part in vectors.split(LOOKUP_ROWS):
        distances = torch.addmm(squares, part, codebook.T, alpha=-2.0)  # less |z|^2, equal for all codes
        parts.append(distances.argmin(1))
    return torch.cat(parts).view(batch, height, width)


def code_vectors(codes: Tensor, codebook: Tensor) -> Tensor:
    """Codes [B, h, w] to the rows of ``codebook`` [K, c] as an image [B, c, h, w]."""
    return F.embedding(codes, codebook).permute(0, 3, 1, 2).contiguous()


def grid_of(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of codes; ValueError where the stride does not divide the image."""
    if any(side < stride or side % stride for side in image_size):
        raise ValueError(f"image size {image_size} is not divisible by the stride {stride}")
    return image_size[0] // stride, image_size[1] // stride


def initialise_tokenizer(tokenizer: nn.Module, generator: torch.Generator) -> None:
    """The framework's first values of convolutions, +-1/K for the code book, unit norms."""
    for module in tokenizer.modules():
        if isinstance(module, nn.GroupNorm):
            module.reset_parameters()
            continue
        if isinstance(module, nn.Conv2d):
            bound = (module.in_channels * module.kernel_size[0] * module.kernel_size[1]) ** -0.5
        elif isinstance(module, nn.Embedding):
            bound = 1 / module.num_embeddings
        else:
            continue
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound, generator=generator)


def multipliers(file: Shapes, level: str, width: int) -> tuple[int, ...]:
    """Channels of every level over ``width``, in the order of the keys; ``{i}`` in ``level`` is its index."""
    return tuple(
        file.size(*((f"{level.format(i=index)}.{{i}}.{key}.weight", 0) for key in ("norm2", "conv2")))
        // width
        for index in range(file.layers(f"{level}.0.norm1.weight", f"{level}.0.conv1.weight"))
    )


@dataclass(frozen=True)
class PublishedTokenizer:
    """The authors' naming of one tokenizer family.

    keys: their state dict onto our modules. tokenizer, config: our class, and the dataclass that it is built
    from. names: their hyper-parameters that decide an image or a code, onto fields of ``config``. measure:
    shapes of their files -> those hyper-parameters; CheckpointError where nothing shows one.
    """

    family: str
    keys: KeyMap
    tokenizer: Callable[[Any], Tokenizer]
    config: Callable[..., Any]
    names: Mapping[str, str]
    measure: Callable[[Shapes], Measured]

    def build(self, settings: Mapping[str, Any], image_size: tuple[int, int]) -> Tokenizer:
        """The tokenizer of their hyper-parameters, of which those left out are the published ones.

        image_size: height and width of the images in pixels.
        """
        return self.tokenizer(self.configured(settings, image_size=image_size))

    def configured(self, settings: Mapping[str, Any], **more: Any) -> Any:
        """Our configuration of their hyper-parameters and of ``more`` fields of ours."""
        given = {self.names[key]: value for key, value in settings.items() if key in self.names}
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return self.config(**given, **more)
