"""A naive VAR (arXiv 2404.02905): its quantiser, transformer and tokenizer, from the specification alone.

A decode whose codes are all known is one masked pass over them, as its training is; only guidance makes a
difference between the scales.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.naive.convolutions import (
    DrawnWeights,
    attend,
    code_vectors,
    convolution,
    double,
    group_norm,
    halve,
    nearest_codes,
    output,
    random_image,
    residual_block,
    silu,
    unit_vectors,
)
from tests.naive.parts import Config, Weights, cross_entropy, normal, recording, seeded
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
PUBLISHED_SIDES = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
QUANTISER_SETTINGS = ("V", "Cvae", "share_quant_resi", "quant_resi", "patch_nums")


def small_config(sides: Sequence[int], **changes: Any) -> Config:
    return {
        "V": 32,
        "Cvae": 8,
        "share_quant_resi": 4,
        "quant_resi": 0.5,
        "num_classes": 5,
        "depth": 2,
        "embed_dim": 32,
        "num_heads": 4,
        "shared_aln": False,
        "attn_l2_norm": True,
        "patch_nums": list(sides),
        **changes,
    }


def places(config: Config) -> list[int]:
    """How many codes every scale has."""
    return [side * side for side in config["patch_nums"]]


def random_codes(config: Config, batch: int, generator: torch.Generator) -> Tensor:
    """[B, L]."""
    return torch.randint(0, config["V"], (batch, sum(places(config))), generator=generator)


# The quantiser


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


# The transformer


def scale_of_places(config: Config) -> Tensor:
    """int [L]."""
    return torch.cat([torch.full((count,), scale) for scale, count in enumerate(places(config))])


def seen(config: Config) -> Tensor:
    """bool [L, L]: each place sees its own scale and the smaller ones."""
    scales = scale_of_places(config)
    return scales[None, :] <= scales[:, None]


def linear_weights(
    name: str, inputs: int, outputs: int, generator: torch.Generator, scale: float = 1.0
) -> Weights:
    return {
        f"{name}.weight": normal(generator, outputs, inputs, scale=scale * inputs**-0.5),
        f"{name}.bias": normal(generator, outputs, scale=0.3),
    }


def block_weights(config: Config, index: int, generator: torch.Generator, spread: float) -> Weights:
    """spread: of the logarithms of the heads' factors around that of 4."""
    width, name = config["embed_dim"], f"blocks.{index}"
    weights = {
        f"{name}.attn.q_bias": normal(generator, width, scale=0.3),
        f"{name}.attn.v_bias": normal(generator, width, scale=0.3),
        f"{name}.attn.mat_qkv.weight": normal(generator, 3 * width, width, scale=width**-0.5),
        f"{name}.attn.scale_mul_1H11": math.log(4)
        + normal(generator, 1, config["num_heads"], 1, 1, scale=spread),
        **linear_weights(f"{name}.attn.proj", width, width, generator),
        **linear_weights(f"{name}.ffn.fc1", width, 4 * width, generator),
        **linear_weights(f"{name}.ffn.fc2", 4 * width, width, generator),
    }
    if config["shared_aln"]:
        return {**weights, f"{name}.ada_gss": normal(generator, 1, 1, 6, width, scale=0.3)}
    return {**weights, **linear_weights(f"{name}.ada_lin.1", width, 6 * width, generator, scale=0.5)}


def transformer_weights(
    config: Config, generator: torch.Generator, spread: float = 0.5, buffers: bool = True
) -> Weights:
    """The published state dict. buffers: with the two that follow from the sides."""
    width, classes, largest = config["embed_dim"], config["num_classes"] + 1, sum(places(config))
    weights = {
        "class_emb.weight": normal(generator, classes, width),
        "pos_start": normal(generator, 1, 1, width, scale=0.3),
        "pos_1LC": normal(generator, 1, largest, width, scale=0.3),
        "lvl_embed.weight": normal(generator, len(config["patch_nums"]), width, scale=0.3),
        **linear_weights("word_embed", config["Cvae"], width, generator),
        **linear_weights("head_nm.ada_lin.1", width, 2 * width, generator, scale=0.5),
        **linear_weights("head", width, config["V"], generator),
    }
    for index in range(config["depth"]):
        weights |= block_weights(config, index, generator, spread)
        weights[f"blocks.{index}.attn.zero_k_bias"] = torch.zeros(width)
    if config["shared_aln"]:
        weights |= linear_weights("shared_ada_lin.1", width, 6 * width, generator, scale=0.5)
    if buffers:
        hidden = torch.zeros(largest, largest).masked_fill(~seen(config), -math.inf)
        weights["lvl_1L"] = scale_of_places(config)[None]
        weights["attn_bias_for_masking"] = hidden[None, None]
    return weights


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].double().T + weights[f"{name}.bias"].double()


def layer_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def modulation(config: Config, weights: Weights, index: int, condition: Tensor) -> list[Tensor]:
    """Two gates, two scales, two shifts of a block, [B, 1, C] each."""
    if config["shared_aln"]:
        shared = linear(weights, "shared_ada_lin.1", silu(condition)).unflatten(-1, (1, 6, -1))
        parts = shared + weights[f"blocks.{index}.ada_gss"].double()  # [B, 1, 6, C]
    else:
        own = linear(weights, f"blocks.{index}.ada_lin.1", silu(condition))
        parts = own.unflatten(-1, (1, 6, -1))  # [B, 1, 6, C]
    return list(parts.unbind(dim=2))


def attention(config: Config, weights: Weights, index: int, x: Tensor) -> Tensor:
    """Attention of x [B, L, C] by cosines, which every head multiplies by a factor of at most 100."""
    name, width = f"blocks.{index}.attn", config["embed_dim"]
    bias = torch.cat([weights[f"{name}.q_bias"], torch.zeros(width), weights[f"{name}.v_bias"]])
    rows = x @ weights[f"{name}.mat_qkv.weight"].double().T + bias.double()
    q, k, v = (
        part.unflatten(-1, (config["num_heads"], -1)) for part in rows.chunk(3, dim=-1)
    )  # [B, L, H, D]
    factors = weights[f"{name}.scale_mul_1H11"].double().clamp(max=math.log(100)).exp().reshape(-1, 1)
    q, k = unit_vectors(q, dim=-1) * factors, unit_vectors(k, dim=-1)
    scores = torch.einsum("bihd,bjhd->bhij", q, k).masked_fill(~seen(config), -math.inf)
    attended = torch.einsum("bhij,bjhd->bihd", scores.softmax(dim=-1), v).flatten(-2)  # [B, L, C]
    return linear(weights, f"{name}.proj", attended)


def feed_forward(weights: Weights, index: int, x: Tensor) -> Tensor:
    name = f"blocks.{index}.ffn"
    return linear(weights, f"{name}.fc2", tanh_gelu(linear(weights, f"{name}.fc1", x)))


def block(config: Config, weights: Weights, index: int, x: Tensor, condition: Tensor) -> Tensor:
    gate1, gate2, scale1, scale2, shift1, shift2 = modulation(config, weights, index, condition)
    x = x + gate1 * attention(config, weights, index, layer_norm(x) * (1 + scale1) + shift1)
    return x + gate2 * feed_forward(weights, index, layer_norm(x) * (1 + scale2) + shift2)


def embed(config: Config, weights: Weights, condition: Tensor, features: Tensor) -> Tensor:
    """Inputs [B, L, C]: the class [B, C], then features [B, L - 1, Cv]."""
    first = condition.unsqueeze(1) + weights["pos_start"].double()
    x = torch.cat([first, linear(weights, "word_embed", features)], dim=1)
    level = weights["lvl_embed.weight"].double()[scale_of_places(config)]
    return x + level + weights["pos_1LC"].double()


def forward(config: Config, weights: Weights, labels: Tensor, features: Tensor) -> Tensor:
    """Logits [B, L, V] of all places by labels [B], of which those below 0 are no class, and features."""
    labels = torch.where(labels < 0, config["num_classes"], labels)
    condition = weights["class_emb.weight"].double()[labels]  # [B, C]
    x = embed(config, weights, condition, features)
    for index in range(config["depth"]):
        x = block(config, weights, index, x, condition)
    scale, shift = linear(weights, "head_nm.ada_lin.1", silu(condition)).unsqueeze(1).chunk(2, dim=-1)
    return linear(weights, "head", layer_norm(x) * (1 + scale) + shift)


def decode(config: Config, weights: Weights, labels: Tensor, features: Tensor, cfg: float) -> list[Tensor]:
    """Logits [B, n, V] of every scale, guided by nothing at the first one and with 1 + cfg at the last."""
    with_class = forward(config, weights, labels, features).split(places(config), dim=1)
    without = forward(config, weights, torch.full_like(labels, -1), features).split(places(config), dim=1)
    ends = [cfg * scale / (len(with_class) - 1) for scale in range(len(with_class))]
    return [(1 + t) * c - t * u for t, c, u in zip(ends, with_class, without, strict=True)]


# The tokenizer


def attention_block(weights: DrawnWeights, name: str, x: Tensor) -> Tensor:
    width = x.shape[1]
    rows = convolution(weights, f"{name}.qkv", group_norm(weights, f"{name}.norm", x), 3 * width, size=1)
    q, k, v = rows.chunk(3, dim=1)
    return x + convolution(weights, f"{name}.proj_out", attend(q, k, v), width, size=1)


def middle(weights: DrawnWeights, name: str, x: Tensor) -> Tensor:
    x = residual_block(weights, f"{name}.mid.block_1", x, x.shape[1])
    x = attention_block(weights, f"{name}.mid.attn_1", x)
    return residual_block(weights, f"{name}.mid.block_2", x, x.shape[1])


def blocks(weights: DrawnWeights, name: str, x: Tensor, width: int, count: int, attends: bool) -> Tensor:
    for index in range(count):
        x = residual_block(weights, f"{name}.block.{index}", x, width)
        if attends:
            x = attention_block(weights, f"{name}.attn.{index}", x)
    return x


def encoder(config: Config, weights: DrawnWeights, image: Tensor) -> Tensor:
    """Features [B, Cv, h, w] of an image [B, 3, H, W]; the lowest level attends."""
    widths = [config["ch"] * multiplier for multiplier in config["ch_mult"]]
    x = convolution(weights, "encoder.conv_in", image, config["ch"])
    for level, width in enumerate(widths):
        name, lowest = f"encoder.down.{level}", level == len(widths) - 1
        x = blocks(weights, name, x, width, config["num_res_blocks"], attends=lowest)
        if not lowest:
            x = halve(weights, f"{name}.downsample.conv", x)
    x = output(weights, "encoder", middle(weights, "encoder", x), config["Cvae"])
    return convolution(weights, "quant_conv", x, config["Cvae"])


def decoder(config: Config, weights: DrawnWeights, features: Tensor) -> Tensor:
    """The image [B, 3, H, W] of features [B, Cv, h, w], not clamped."""
    widths = [config["ch"] * multiplier for multiplier in config["ch_mult"]]
    x = convolution(weights, "post_quant_conv", features, config["Cvae"])
    x = convolution(weights, "decoder.conv_in", x, widths[-1])
    x = middle(weights, "decoder", x)
    for level in reversed(range(len(widths))):
        name, lowest = f"decoder.up.{level}", level == len(widths) - 1
        x = blocks(weights, name, x, widths[level], config["num_res_blocks"] + 1, attends=lowest)
        if level > 0:
            x = double(weights, f"{name}.upsample.conv", x)
    return output(weights, "decoder", x, 3)


# Recordings


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}.{key}": value for key, value in weights.items()}


def said(config: Config, unsaid: Sequence[str]) -> Config:
    """Without hyper-parameters at their published defaults that a recording leaves out."""
    return {key: value for key, value in config.items() if key not in unsaid}


def numbered(name: str, tensors: Sequence[Tensor]) -> Weights:
    return {f"{name}.{index}": tensor for index, tensor in enumerate(tensors)}


def decode_steps(config: Config, logits: Sequence[Tensor]) -> Weights:
    """What every decode of whole scales records."""
    order = torch.arange(sum(places(config)))
    positions = order.split(places(config))
    return {
        "order": order,
        **numbered("step_logits", logits),
        **numbered("step_positions", positions),
    }


def random_labels(config: Config, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, config["num_classes"], (batch,), generator=generator)


def decoded(
    name: str,
    sides: Sequence[int] = (1, 2, 3, 4),
    batch: int = 2,
    seed: int = 0,
    labels: list[int] | None = None,
    spread: float = 0.5,
    buffers: bool = True,
    unsaid: Sequence[str] = (),
    sampling: dict[str, Any] | None = None,
    **changes: Any,
) -> Golden:
    config, generator = small_config(sides, **changes), seeded(seed)
    sampling = {"cfg": 1.5, "top_k": 0, "top_p": 0.0, "more_smooth": False, **(sampling or {})}
    quantiser = quantiser_weights(config, generator)
    weights = transformer_weights(config, generator, spread, buffers)
    codes = random_codes(config, batch, generator)
    classes = random_labels(config, batch, generator) if labels is None else torch.tensor(labels)
    fed = inputs(config, quantiser, codes)
    logits = decode(config, weights, classes, torch.cat(fed, dim=1), sampling["cfg"])
    io = {
        "labels": classes,
        "tokens": codes,
        "f_hat": add_up(config, quantiser, codes)[-1],
        **numbered("next_input", fed),
        **decode_steps(config, logits),
    }
    state = prefixed("var_wo_ddp", weights) | prefixed("vae_local", quantiser)
    return recording("var", "decode", name, io, said(config, unsaid), sampling, state)


def taught(
    name: str,
    sides: Sequence[int] = (1, 2, 3, 4),
    batch: int = 2,
    seed: int = 0,
    labels: list[int] | None = None,
    dropped: list[bool] | None = None,
    spread: float = 0.5,
    buffers: bool = True,
    unsaid: Sequence[str] = (),
    **changes: Any,
) -> Golden:
    config, generator = small_config(sides, **changes), seeded(seed)
    quantiser = quantiser_weights(config, generator)
    weights = transformer_weights(config, generator, spread, buffers)
    codes = random_codes(config, batch, generator)
    classes = random_labels(config, batch, generator) if labels is None else torch.tensor(labels)
    features = torch.cat(inputs(config, quantiser, codes), dim=1)
    io = {"labels": classes, "tokens": codes, "teacher_input": features}
    if dropped is not None:
        io["label_dropped"] = torch.tensor(dropped)
        classes = torch.where(io["label_dropped"], -1, classes)
    logits = forward(config, weights, classes, features)
    io |= {"logits": logits, "loss": cross_entropy(logits, codes)}
    state = prefixed("var_wo_ddp", weights) | prefixed("vae_local", quantiser)
    return recording("var", "loss", name, io, said(config, unsaid), weights=state)


def quantised(
    name: str,
    sides: Sequence[int],
    batch: int = 2,
    seed: int = 0,
    unsaid: Sequence[str] = (),
    **changes: Any,
) -> Golden:
    """The quantiser alone."""
    config, generator = small_config(sides, **changes), seeded(seed)
    weights = quantiser_weights(config, generator)
    features = normal(generator, batch, config["Cvae"], sides[-1], sides[-1], scale=2.0)
    codes, totals = quantise(config, weights, features.double())
    io = {"f": features, "codes": codes, **numbered("f_hat", totals)}
    told = {key: config[key] for key in (*QUANTISER_SETTINGS, *changes) if key not in unsaid}
    return recording("var", "other", name, io, told, weights=prefixed("vae_local", weights))


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
    sizes = {"ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1}
    config, weights, generator = small_config(sides, **sizes | changes), DrawnWeights(seed), seeded(seed + 1)
    weights.update(quantiser_weights(config, generator))
    if statistics:
        weights["quantize.ema_vocab_hit_SV"] = torch.rand(10, config["V"], generator=generator)
    side = sides[-1] * 2 ** (len(config["ch_mult"]) - 1)
    image = random_image(batch, side, side, generator)
    codes = random_codes(config, batch, generator)
    features, total = encoder(config, weights, image.double()), add_up(config, weights, codes)[-1]
    io = {
        "image_in": image,
        "features": features,
        "codes_out": quantise(config, weights, features)[0],
        "codes": codes,
        "f_hat": total,
        "image": decoder(config, weights, total),
    }
    told = {key: config[key] for key in (*QUANTISER_SETTINGS, *sizes, *changes) if key not in unsaid}
    return recording("var", "tokenizer", name, io, told, weights=prefixed("vae_local", weights))


NARROW = {"V": 20, "Cvae": 4, "embed_dim": 16, "num_heads": 2, "depth": 1}
"""For long sequences."""

DECODES: dict[str, dict[str, Any]] = {
    "one-head-one-block-one-image": {"sides": (1, 2, 3, 4, 5, 7), "batch": 1, "num_heads": 1, "depth": 1},
    "eight-heads-shared-norm-three-images": {
        "sides": (1, 2, 3, 5, 6, 8, 9),
        "batch": 3,
        "embed_dim": 40,
        "num_heads": 8,
        "shared_aln": True,
        "sampling": {"cfg": 4.0},
    },
    "unguided": {"sides": (1, 2, 3), "sampling": {"cfg": 0.0}},
    "guided-backwards": {"sampling": {"cfg": -0.5}},
    "two-scales": {"sides": (1, 4), "sampling": {"cfg": 2.0}},
    "factors-above-the-limit": {"num_heads": 8, "depth": 1, "spread": 3.0, "seed": 6},  # two of eight heads'
    "quarter-of-the-convolution": {"quant_resi": 0.25},
    "filters-and-temperature-come-later": {"sampling": {"top_k": 7, "top_p": 0.9, "temperature": 0.5}},
    "labels-that-are-no-class": {"labels": [-1, 5, 2, -7], "batch": 4},
    "without-buffers": {"buffers": False, "shared_aln": True},
    "defaults-unsaid": {
        "sides": PUBLISHED_SIDES,
        **NARROW,
        "unsaid": ("patch_nums", "quant_resi", "share_quant_resi", "shared_aln", "attn_l2_norm"),
    },
}
LOSSES: dict[str, dict[str, Any]] = {
    "three-quarters-of-the-convolution": {"quant_resi": 0.75, "sides": (1, 2, 4, 5, 6)},
    "some-labels-dropped": {"batch": 3, "dropped": [True, False, True]},
    "labels-that-are-no-class": {"labels": [-1, 5, 3, 1], "batch": 4, "dropped": [False] * 3 + [True]},
    "defaults-unsaid": {
        "sides": PUBLISHED_SIDES,
        **NARROW,
        "unsaid": ("patch_nums", "quant_resi", "share_quant_resi", "shared_aln", "attn_l2_norm"),
    },
}
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
        ("decode", decoded, DECODES),
        ("loss", taught, LOSSES),
        ("quantiser", quantised, QUANTISERS),
        ("tokenizer", tokenized, TOKENIZERS),
    )
    for seed, (name, setting) in enumerate(settings.items())
}
