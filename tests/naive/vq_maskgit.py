"""A naive tokenizer of MaskGIT (arXiv 2202.04200), with pixels in [0, 1], from the specification alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.convolutions import (
    DrawnWeights,
    code_vectors,
    convolution,
    double,
    nearest_codes,
    output,
    random_image,
    residual_branch,
)
from tests.naive.parts import Config, recording, seeded
from tests.replays.common import Golden


def small_config(**changes: Any) -> Config:
    multipliers = changes.get("channel_mult", [1, 1])
    return {
        "channel_mult": multipliers,
        "num_resolutions": len(multipliers),
        "dropout": 0.0,
        "hidden_channels": 32,
        "num_channels": 3,
        "num_res_blocks": 1,
        "resolution": 16,
        "z_channels": 6,
        "codebook_size": 40,
        **changes,
    }


def residual_block(weights: DrawnWeights, name: str, x: Tensor, outputs: int) -> Tensor:
    """Where the width changes the output goes around the shortcut, and the input nowhere."""
    branch = residual_branch(weights, name, x, outputs, bias=False)
    if x.shape[1] == outputs:
        return x + branch
    return branch + convolution(weights, f"{name}.nin_shortcut", branch, outputs, size=1, bias=False)


def blocks(config: Config, weights: DrawnWeights, name: str, x: Tensor, width: int) -> Tensor:
    for index in range(config["num_res_blocks"]):
        x = residual_block(weights, f"{name}.{index}", x, width)
    return x


def mean_of_four(x: Tensor) -> Tensor:
    batch, width, height, length = x.shape
    return x.reshape(batch, width, height // 2, 2, length // 2, 2).mean(dim=(3, 5))


def encoder(config: Config, weights: DrawnWeights, image: Tensor) -> Tensor:
    """Features [B, c, h, w] of an image [B, 3, H, W]."""
    widths = [config["hidden_channels"] * multiplier for multiplier in config["channel_mult"]]
    x = convolution(weights, "encoder.conv_in", image, config["hidden_channels"], bias=False)
    for level, width in enumerate(widths):
        x = blocks(config, weights, f"encoder.down.{level}.block", x, width)
        if level < len(widths) - 1:
            x = mean_of_four(x)
    x = blocks(config, weights, "encoder.mid", x, widths[-1])
    return output(weights, "encoder", x, config["z_channels"], size=1)


def codebook(config: Config, weights: DrawnWeights) -> Tensor:
    return weights.drawn("quantize.embedding.weight", config["codebook_size"], config["z_channels"])


def encode(config: Config, weights: DrawnWeights, image: Tensor) -> Tensor:
    return nearest_codes(encoder(config, weights, image), codebook(config, weights))


def decode(config: Config, weights: DrawnWeights, codes: Tensor) -> Tensor:
    """The image [B, 3, H, W] of codes [B, h, w], not clamped."""
    widths = [config["hidden_channels"] * multiplier for multiplier in config["channel_mult"]]
    x = code_vectors(codes, codebook(config, weights))
    x = convolution(weights, "decoder.conv_in", x, widths[-1])
    x = blocks(config, weights, "decoder.mid", x, widths[-1])
    for level in reversed(range(len(widths))):
        x = blocks(config, weights, f"decoder.up.{level}.block", x, widths[level])
        if level > 0:
            x = double(weights, f"decoder.up.{level}.upsample_conv", x)
    return output(weights, "decoder", x, 3)


def tokenized(
    name: str,
    grid: tuple[int, int],
    batch: int,
    seed: int,
    pixels: tuple[float, float] = (0.0, 1.0),
    twins: bool = False,
    unsaid: tuple[str, ...] = (),
    unrecorded: tuple[str, ...] = (),
    **changes: Any,
) -> Golden:
    """pixels: the range of the image. twins: the second half of the codebook repeats the first."""
    config, weights, generator = small_config(**changes), DrawnWeights(seed), seeded(seed + 1)
    stride = 2 ** (len(config["channel_mult"]) - 1)
    unit_image = (random_image(batch, grid[0] * stride, grid[1] * stride, generator) + 1) / 2
    image = pixels[0] + unit_image * (pixels[1] - pixels[0])
    codes = torch.randint(0, config["codebook_size"], (batch, *grid), generator=generator)
    if twins:
        half = codebook(config, weights)[: config["codebook_size"] // 2].float()
        weights["quantize.embedding.weight"] = torch.cat([half, half])
    io = {
        "image_in": image,
        "codes_out": encode(config, weights, image.double()),
        "codes": codes,
        "image": decode(config, weights, codes),
    }
    return recording(
        "vq-maskgit", "tokenizer", name, io, config, weights=weights, unsaid=unsaid, unrecorded=unrecorded
    )


PUBLISHED_SIZES = {"channel_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2, "z_channels": 256}

SETTINGS: dict[str, dict[str, Any]] = {
    "four-levels-of-changing-width": {
        "grid": (2, 3),
        "batch": 3,
        "channel_mult": [1, 2, 1, 2],
        "num_res_blocks": 2,
    },
    "one-level": {"grid": (4, 5), "channel_mult": [2]},
    "three-channels-in-a-group": {"grid": (2, 3), "hidden_channels": 96},
    "three-blocks-of-a-level": {"grid": (4, 3), "hidden_channels": 64, "num_res_blocks": 3},
    "codes-of-one-number": {"grid": (2, 3), "codebook_size": 5, "z_channels": 1},
    "equal-codes-take-the-first": {"grid": (5, 4), "codebook_size": 34, "z_channels": 7, "twins": True},
    "pixels-outside-the-range": {"grid": (4, 3), "pixels": (-2.0, 3.0)},
    "pixels-of-one-value": {"grid": (3, 3), "batch": 1, "pixels": (0.7, 0.7), "channel_mult": [1, 1, 1]},
    "one-column-of-codes": {"grid": (6, 1), "dropout": 0.1},
    "codes-alone": {"grid": (3, 4), "batch": 1, "unrecorded": ("image_in", "codes_out")},
    "image-alone": {"grid": (3, 4), "batch": 1, "unrecorded": ("image", "codes")},
    "defaults-unsaid": {
        "grid": (2, 1),
        "batch": 1,
        "unsaid": (*PUBLISHED_SIZES, "num_resolutions", "dropout", "num_channels", "resolution"),
        **PUBLISHED_SIZES,
    },
}

CASES: dict[str, Callable[[], Golden]] = {
    name: partial(tokenized, name, **{"batch": 2, "seed": seed, **setting})
    for seed, (name, setting) in enumerate(SETTINGS.items())
}
