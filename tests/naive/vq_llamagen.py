"""A naive tokenizer of LlamaGen (arXiv 2406.06525) from the specification alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.convolutions import (
    DrawnWeights,
    Layout,
    attend,
    code_vectors,
    convolution,
    decoder,
    encoder,
    group_norm,
    nearest_codes,
    random_image,
    unit_vectors,
)
from tests.naive.parts import Config, recording, seeded
from tests.replays.common import Golden


def small_config(**changes: Any) -> Config:
    return {
        "ch": 32,
        "num_res_blocks": 1,
        "encoder_ch_mult": [1, 1],
        "decoder_ch_mult": [1, 1],
        "z_channels": 8,
        "codebook_size": 48,
        "codebook_embed_dim": 4,
        "codebook_l2_norm": True,
        "codebook_show_usage": False,
        **changes,
    }


def attention(weights: DrawnWeights, name: str, x: Tensor) -> Tensor:
    width, normed = x.shape[1], group_norm(weights, f"{name}.norm", x)
    q, k, v = (convolution(weights, f"{name}.{part}", normed, width, size=1) for part in ("q", "k", "v"))
    return x + convolution(weights, f"{name}.proj_out", attend(q, k, v), width, size=1)


LAYOUT = Layout(attention, residual="res", middle=("0", "1", "2"))


def codebook(config: Config, weights: DrawnWeights) -> Tensor:
    """What codes are looked up in, and what the decoder is given: rows of length 1, unless told otherwise."""
    rows = weights.drawn("quantize.embedding.weight", config["codebook_size"], config["codebook_embed_dim"])
    return unit_vectors(rows, dim=1) if config["codebook_l2_norm"] else rows


def encode(config: Config, weights: DrawnWeights, image: Tensor) -> Tensor:
    """Codes [B, h, w] of an image [B, 3, H, W]."""
    width = config["ch"]
    levels = [
        (f"encoder.conv_blocks.{level}", width * multiplier)
        for level, multiplier in enumerate(config["encoder_ch_mult"])
    ]
    x = encoder(LAYOUT, weights, image, width, levels, config["num_res_blocks"], config["z_channels"])
    x = convolution(weights, "quant_conv", x, config["codebook_embed_dim"], size=1)
    if config["codebook_l2_norm"]:
        x = unit_vectors(x, dim=1)
    return nearest_codes(x, codebook(config, weights))


def decode(config: Config, weights: DrawnWeights, codes: Tensor) -> Tensor:
    """The image [B, 3, H, W] of codes [B, h, w]; levels count from the lowest on."""
    levels = [
        (f"decoder.conv_blocks.{level}", config["ch"] * multiplier)
        for level, multiplier in enumerate(reversed(config["decoder_ch_mult"]))
    ]
    x = code_vectors(codes, codebook(config, weights))
    x = convolution(weights, "post_quant_conv", x, config["z_channels"], size=1)
    return decoder(LAYOUT, weights, x, levels, config["num_res_blocks"] + 1)


def tokenized(
    name: str,
    grid: tuple[int, int],
    batch: int,
    seed: int,
    zero_row: int | None = None,
    unsaid: tuple[str, ...] = (),
    unrecorded: tuple[str, ...] = (),
    **changes: Any,
) -> Golden:
    """zero_row: a code whose vector is zero."""
    config, weights, generator = small_config(**changes), DrawnWeights(seed), seeded(seed + 1)
    stride = 2 ** (len(config["encoder_ch_mult"]) - 1)
    image = random_image(batch, grid[0] * stride, grid[1] * stride, generator)
    codes = torch.randint(0, config["codebook_size"], (batch, *grid), generator=generator)
    codebook(config, weights)
    if zero_row is not None:
        weights["quantize.embedding.weight"][zero_row] = 0
        codes[:, 0, 0] = zero_row
    if config["codebook_show_usage"]:
        weights["quantize.codebook_used"] = torch.rand(65536, generator=generator)
    io = {
        "image_in": image,
        "codes_out": encode(config, weights, image.double()),
        "codes": codes,
        "image": decode(config, weights, codes),
    }
    return recording(
        "vq-llamagen", "tokenizer", name, io, config, weights=weights, unsaid=unsaid, unrecorded=unrecorded
    )


PUBLISHED_SIZES = {
    "encoder_ch_mult": [1, 1, 2, 2, 4],
    "decoder_ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "z_channels": 256,
}
UNNORMALISED = {"codebook_l2_norm": False}
TRAINED = {"codebook_show_usage": True, "commit_loss_beta": 0.25, "entropy_loss_ratio": 0.0, "dropout_p": 0.1}

SETTINGS: dict[str, dict[str, Any]] = {
    "three-levels-of-changing-width": {
        "grid": (2, 3),
        "batch": 3,
        "encoder_ch_mult": [1, 2, 1],
        "decoder_ch_mult": [2, 1, 2],
        "num_res_blocks": 2,
    },
    "one-level": {"grid": (5, 3), "encoder_ch_mult": [2], "decoder_ch_mult": [2]},
    "halves-of-other-widths": {"grid": (3, 2), "encoder_ch_mult": [2, 3], "decoder_ch_mult": [3, 1]},
    "encoder-of-more-levels": {"grid": (3, 3), "encoder_ch_mult": [1, 1, 1]},
    "decoder-of-more-levels": {"grid": (3, 3), "decoder_ch_mult": [1, 1, 1]},
    "three-channels-in-a-group": {"grid": (2, 2), "ch": 96},
    "three-blocks-of-a-level": {"grid": (2, 4), "batch": 1, "num_res_blocks": 3, "z_channels": 5},
    "one-row-of-codes": {"grid": (1, 6)},
    "codebook-as-stored": {"grid": (3, 3), **UNNORMALISED},
    "codebook-as-stored-with-usage": {"grid": (3, 3), **UNNORMALISED, **TRAINED},
    "codes-of-one-number-tie": {"grid": (3, 4), "codebook_embed_dim": 1},
    "a-code-of-zeros": {"grid": (4, 5), "codebook_size": 6, "codebook_embed_dim": 8, "zero_row": 2},
    "a-code-of-zeros-as-stored": {"grid": (4, 5), "codebook_size": 6, "zero_row": 2, **UNNORMALISED},
    "codes-alone": {"grid": (3, 3), "unrecorded": ("image_in", "codes_out")},
    "image-alone": {"grid": (3, 3), "unrecorded": ("image", "codes")},
    "defaults-unsaid": {
        "grid": (2, 1),
        "batch": 1,
        "unsaid": (*PUBLISHED_SIZES, "codebook_l2_norm", "codebook_show_usage"),
        **PUBLISHED_SIZES,
    },
}

CASES: dict[str, Callable[[], Golden]] = {
    name: partial(tokenized, name, **{"batch": 2, "seed": seed, **setting})
    for seed, (name, setting) in enumerate(SETTINGS.items())
}
