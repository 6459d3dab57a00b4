"""A naive tokenizer of VAR (arXiv 2404.02905) and its quantiser, from the specification alone."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
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
from tests.naive.parts import Config, Weights, normal, numbered, recording, seeded
from tests.replays.common import Golden

FILTERS = {
    2: "03",
    3: "023",
    4: "0123",
    5: "01223",
    6: "001233",
    7: "0012233",
    8: "00112233",
    9: "001122233",
    10: "0011122333",
    11: "00011222333",
    12: "000111222333",
    13: "0001112222333",
    14: "00011112222333",
}
"""By the number of scales: which residual convolution follows each of them."""


def small_config(sides: Sequence[int], **changes: Any) -> Config:
    """Hyper-parameters of the quantiser."""
    return {
        "V": 32,
        "Cvae": 8,
        "share_quant_resi": 4,
        "quant_resi": 0.5,
        "patch_nums": list(sides),
        **changes,
    }


def places(config: Config) -> list[int]:
    """How many codes every scale has."""
    return [side * side for side in config["patch_nums"]]


def random_codes(config: Config, batch: int, generator: torch.Generator) -> Tensor:
    """[B, L]."""
    return torch.randint(0, config["V"], (batch, sum(places(config))), generator=generator)


def quantiser_weights(config: Config, generator: torch.Generator) -> Weights:
    codes, width = config["V"], config["Cvae"]
    weights = {"quantize.embedding.weight": normal(generator, codes, width)}
    for index in range(4):
        name = f"quantize.quant_resi.qresi_ls.{index}"
        weights[f"{name}.weight"] = normal(generator, width, width, 3, 3, scale=0.4 * width**-0.5)
        weights[f"{name}.bias"] = normal(generator, width, scale=0.1)
    return weights


def codebook(weights: Weights) -> Tensor:
    return weights["quantize.embedding.weight"].double()


def is_last(config: Config, scale: int) -> bool:
    return scale == len(config["patch_nums"]) - 1


def smooth(config: Config, weights: Weights, scale: int, x: Tensor) -> Tensor:
    """The residual convolution of a scale: part of x [B, Cv, S, S], part of its convolution."""
    name = f"quantize.quant_resi.qresi_ls.{FILTERS[len(config['patch_nums'])][scale]}"
    kernel, bias = weights[f"{name}.weight"].double(), weights[f"{name}.bias"].double()
    share = config["quant_resi"]
    return (1 - share) * x + share * F.conv2d(x, kernel, bias, padding=1)


def enlarge(config: Config, weights: Weights, scale: int, codes: Tensor) -> Tensor:
    """What the codes [B, n] of a scale add to the map of features, [B, Cv, S, S]."""
    side, largest = config["patch_nums"][scale], config["patch_nums"][-1]
    vectors = code_vectors(codes.unflatten(1, (side, side)), codebook(weights))  # [B, Cv, s, s]
    if not is_last(config, scale):
        vectors = F.interpolate(vectors, size=(largest, largest), mode="bicubic", align_corners=False)
    return smooth(config, weights, scale, vectors)


def shrink(config: Config, scale: int, features: Tensor) -> Tensor:
    """A map [B, Cv, S, S] averaged over areas to the side of a scale."""
    side = config["patch_nums"][scale]
    return features if is_last(config, scale) else F.adaptive_avg_pool2d(features, (side, side))


def quantise(config: Config, weights: Weights, features: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Codes [B, L] of features [B, Cv, S, S], and the sums [B, Cv, S, S] after every scale."""
    rest, total, codes, totals = features, torch.zeros_like(features), [], []
    for scale in range(len(config["patch_nums"])):
        wanted, rows = shrink(config, scale, rest), codebook(weights)
        if config.get("using_znorm", False):
            wanted, rows = unit_vectors(wanted, dim=1), unit_vectors(rows, dim=1)
        found = nearest_codes(wanted, rows).flatten(1)  # [B, n]
        part = enlarge(config, weights, scale, found)
        total, rest = total + part, rest - part
        codes.append(found)
        totals.append(total)
    return torch.cat(codes, dim=1), totals


def add_up(config: Config, weights: Weights, codes: Tensor) -> list[Tensor]:
    """The map of features [B, Cv, S, S] that codes [B, L] add up to after every scale."""
    totals: list[Tensor] = []
    for scale, part in enumerate(codes.split(places(config), dim=1)):
        added = enlarge(config, weights, scale, part)
        totals.append(totals[-1] + added if totals else added)
    return totals


def inputs(config: Config, weights: Weights, codes: Tensor) -> list[Tensor]:
    """Features [B, n, Cv] that each scale but the first is given: what all smaller ones add up to."""
    totals = add_up(config, weights, codes)[:-1]
    return [
        shrink(config, scale, total).flatten(2).transpose(1, 2) for scale, total in enumerate(totals, start=1)
    ]


def attention(weights: DrawnWeights, name: str, x: Tensor) -> Tensor:
    width = x.shape[1]
    rows = convolution(weights, f"{name}.qkv", group_norm(weights, f"{name}.norm", x), 3 * width, size=1)
    q, k, v = rows.chunk(3, dim=1)
    return x + convolution(weights, f"{name}.proj_out", attend(q, k, v), width, size=1)


LAYOUT = Layout(attention, residual="block", middle=("block_1", "attn_1", "block_2"))


def features_of(config: Config, weights: DrawnWeights, image: Tensor) -> Tensor:
    """[B, Cv, h, w] of an image [B, 3, H, W]."""
    width = config["ch"]
    levels = [
        (f"encoder.down.{level}", width * multiplier) for level, multiplier in enumerate(config["ch_mult"])
    ]
    x = encoder(LAYOUT, weights, image, width, levels, config["num_res_blocks"], config["Cvae"])
    return convolution(weights, "quant_conv", x, config["Cvae"])


def image_of(config: Config, weights: DrawnWeights, features: Tensor) -> Tensor:
    """[B, 3, H, W] of features [B, Cv, h, w], not clamped."""
    levels = [
        (f"decoder.up.{level}", config["ch"] * multiplier)
        for level, multiplier in enumerate(config["ch_mult"])
    ]
    x = convolution(weights, "post_quant_conv", features, config["Cvae"])
    return decoder(LAYOUT, weights, x, levels[::-1], config["num_res_blocks"] + 1)


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}.{key}": value for key, value in weights.items()}


def quantised(
    name: str,
    sides: Sequence[int],
    batch: int = 2,
    seed: int = 0,
    unsaid: Sequence[str] = (),
    **changes: Any,
) -> Golden:
    config, generator = small_config(sides, **changes), seeded(seed)
    weights = quantiser_weights(config, generator)
    features = normal(generator, batch, config["Cvae"], sides[-1], sides[-1], scale=2.0)
    codes, totals = quantise(config, weights, features.double())
    io = {"f": features, "codes": codes, **numbered("f_hat", totals)}
    state = prefixed("vae_local", weights)
    return recording("var", "other", name, io, config, weights=state, unsaid=unsaid)


def tokenized(
    name: str,
    sides: Sequence[int],
    batch: int = 2,
    seed: int = 0,
    statistics: bool = False,
    unsaid: Sequence[str] = (),
    **changes: Any,
) -> Golden:
    """statistics: with the buffer that counts codes in training."""
    config = small_config(sides, **{"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1, **changes})
    weights, generator = DrawnWeights(seed), seeded(seed + 1)
    weights.update(quantiser_weights(config, generator))
    if statistics:
        weights["quantize.ema_vocab_hit_SV"] = torch.rand(10, config["V"], generator=generator)
    side = sides[-1] * 2 ** (len(config["ch_mult"]) - 1)
    image = random_image(batch, side, side, generator)
    codes = random_codes(config, batch, generator)
    features, total = features_of(config, weights, image.double()), add_up(config, weights, codes)[-1]
    io = {
        "image_in": image,
        "features": features,
        "codes_out": quantise(config, weights, features)[0],
        "codes": codes,
        "f_hat": total,
        "image": image_of(config, weights, total),
    }
    state = prefixed("vae_local", weights)
    return recording("var", "tokenizer", name, io, config, weights=state, unsaid=unsaid)


QUANTISERS: dict[str, dict[str, Any]] = {
    **{
        f"{scales}-scales": {"sides": range(1, scales + 1), "Cvae": 4, "V": 16, "batch": 1}
        for scales in (3, 7, 8, 9, 11, 12, 13, 14)
    },
    "scales-far-apart-three-maps": {"sides": (1, 3, 10), "batch": 3},
    "first-scale-of-four": {"sides": (2, 3, 4, 7)},
    "a-tenth-of-the-convolution": {"sides": (1, 2, 3, 4, 5), "quant_resi": 0.1},
    "codes-by-cosine": {"sides": (1, 2, 3, 5), "using_znorm": True},
    "defaults-unsaid": {"sides": (1, 2, 4), "unsaid": ("quant_resi", "share_quant_resi")},
}
TOKENIZERS: dict[str, dict[str, Any]] = {
    "widening-levels": {"sides": (1, 2, 3, 4), "ch_mult": [1, 2]},
    "narrowing-levels": {"sides": (1, 2, 3), "ch_mult": [3, 1], "batch": 1},
    "three-levels-of-two-channels-a-group": {
        "sides": (1, 2, 3, 4, 5),
        "ch": 64,
        "ch_mult": [1, 1, 2],
        "num_res_blocks": 2,
    },
    "one-level": {"sides": (1, 2, 3, 4, 6, 8), "ch_mult": [1], "batch": 3},
    "quarter-of-the-convolution": {"sides": (1, 2, 3), "quant_resi": 0.25},
    "codes-by-cosine": {"sides": (1, 2, 3), "using_znorm": True},
    "with-statistics-of-other-scales": {"sides": (1, 2, 3), "statistics": True},
    "defaults-unsaid": {
        "sides": (1, 2),
        "batch": 1,
        "ch_mult": [1, 1, 2, 2, 4],
        "num_res_blocks": 2,
        "unsaid": ("ch_mult", "num_res_blocks", "quant_resi", "share_quant_resi"),
    },
}

CASES: dict[str, Callable[[], Golden]] = {
    f"{kind}-{name}": partial(make, name, **{"seed": seed, **setting})
    for kind, make, settings in (
        ("quantiser", quantised, QUANTISERS),
        ("tokenizer", tokenized, TOKENIZERS),
    )
    for seed, (name, setting) in enumerate(settings.items())
}
