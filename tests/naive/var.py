"""A naive VAR (arXiv 2404.02905) from the specification alone.

A decode whose codes are all known is one masked pass over them, as its training is; only guidance makes a
difference between the scales.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive import var_tokenizer
from tests.naive.convolutions import unit_vectors
from tests.naive.parts import (
    Config,
    Tensors,
    Weights,
    block_causal_mask,
    cross_entropy,
    label_drops,
    linear,
    linear_weights,
    normal,
    normalised,
    numbered,
    recorded_steps,
    recording,
    seeded,
    silu,
    taught_labels,
    weight,
)
from tests.naive.var_tokenizer import add_up, inputs, places, prefixed, quantiser_weights, random_codes
from tests.replays.common import Golden

EPSILON = 1e-6
"""Of all norms."""
NO_CLASS = -1


def small_config(sides: Sequence[int], **changes: Any) -> Config:
    """Hyper-parameters of the quantiser and of the transformer."""
    transformer = {
        "num_classes": 5,
        "depth": 2,
        "embed_dim": 32,
        "num_heads": 4,
        "shared_aln": False,
        "attn_l2_norm": True,
    }
    return var_tokenizer.small_config(sides, **transformer | changes)


def scale_of_places(config: Config) -> Tensor:
    """int [L]."""
    return torch.cat([torch.full((count,), scale) for scale, count in enumerate(places(config))])


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
        hidden = torch.zeros(largest, largest).masked_fill(~block_causal_mask(places(config)), -math.inf)
        weights["lvl_1L"] = scale_of_places(config)[None]
        weights["attn_bias_for_masking"] = hidden[None, None]
    return weights


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def modulation(config: Config, weights: Weights, index: int, condition: Tensor) -> list[Tensor]:
    """Two gates, two scales, two shifts of a block, [B, 1, C] each."""
    name = "shared_ada_lin.1" if config["shared_aln"] else f"blocks.{index}.ada_lin.1"
    parts = linear(weights, name, silu(condition)).unflatten(-1, (1, 6, -1))  # [B, 1, 6, C]
    if config["shared_aln"]:
        parts = parts + weights[f"blocks.{index}.ada_gss"].double()
    return list(parts.unbind(dim=2))


def attention(config: Config, weights: Weights, index: int, x: Tensor) -> Tensor:
    """Attention of x [B, L, C] by cosines, which every head multiplies by a factor of at most 100."""
    name, width = f"blocks.{index}.attn", config["embed_dim"]
    bias = torch.cat([weights[f"{name}.q_bias"], torch.zeros(width), weights[f"{name}.v_bias"]])
    rows = (x @ weight(weights, f"{name}.mat_qkv").T + bias.double()).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (config["num_heads"], -1)) for part in rows)  # [B, L, H, D]
    factors = weights[f"{name}.scale_mul_1H11"].double().clamp(max=math.log(100)).exp().reshape(-1, 1)
    q, k = unit_vectors(q, dim=-1) * factors, unit_vectors(k, dim=-1)
    scores = torch.einsum("bihd,bjhd->bhij", q, k).masked_fill(~block_causal_mask(places(config)), -math.inf)
    attended = torch.einsum("bhij,bjhd->bihd", scores.softmax(dim=-1), v).flatten(-2)  # [B, L, C]
    return linear(weights, f"{name}.proj", attended)


def feed_forward(weights: Weights, index: int, x: Tensor) -> Tensor:
    name = f"blocks.{index}.ffn"
    return linear(weights, f"{name}.fc2", tanh_gelu(linear(weights, f"{name}.fc1", x)))


def block(config: Config, weights: Weights, index: int, x: Tensor, condition: Tensor) -> Tensor:
    gate1, gate2, scale1, scale2, shift1, shift2 = modulation(config, weights, index, condition)
    x = x + gate1 * attention(config, weights, index, normalised(x, EPSILON) * (1 + scale1) + shift1)
    return x + gate2 * feed_forward(weights, index, normalised(x, EPSILON) * (1 + scale2) + shift2)


def embed(config: Config, weights: Weights, condition: Tensor, features: Tensor) -> Tensor:
    """Inputs [B, L, C]: the class [B, C], then features [B, L - 1, Cv]."""
    first = condition.unsqueeze(1) + weights["pos_start"].double()
    x = torch.cat([first, linear(weights, "word_embed", features)], dim=1)
    level = weight(weights, "lvl_embed")[scale_of_places(config)]
    return x + level + weights["pos_1LC"].double()


def forward(config: Config, weights: Weights, labels: Tensor, features: Tensor) -> Tensor:
    """Logits [B, L, V] of all places by labels [B], of which those below 0 are no class, and features."""
    labels = torch.where(labels < 0, config["num_classes"], labels)
    condition = weight(weights, "class_emb")[labels]  # [B, C]
    x = embed(config, weights, condition, features)
    for index in range(config["depth"]):
        x = block(config, weights, index, x, condition)
    scale, shift = linear(weights, "head_nm.ada_lin.1", silu(condition)).unsqueeze(1).chunk(2, dim=-1)
    return linear(weights, "head", normalised(x, EPSILON) * (1 + scale) + shift)


def decode(config: Config, weights: Weights, labels: Tensor, features: Tensor, cfg: float) -> list[Tensor]:
    """Logits [B, n, V] of every scale, guided by nothing at the first one and with 1 + cfg at the last."""
    with_class = forward(config, weights, labels, features).split(places(config), dim=1)
    without = forward(config, weights, torch.full_like(labels, NO_CLASS), features).split(
        places(config), dim=1
    )
    ends = [cfg * scale / (len(with_class) - 1) for scale in range(len(with_class))]
    return [(1 + t) * c - t * u for t, c, u in zip(ends, with_class, without, strict=True)]


def decode_steps(config: Config, logits: Sequence[Tensor]) -> Tensors:
    """What every decode of whole scales records."""
    order = torch.arange(sum(places(config)))
    return {"order": order, **recorded_steps(logits, order.split(places(config)))}


def random_inputs(
    config: Config, batch: int, generator: torch.Generator, labels: list[int] | None = None
) -> Tensors:
    """With the labels, where they are given."""
    codes = random_codes(config, batch, generator)
    drawn = partial(torch.randint, config["num_classes"], (batch,), generator=generator)
    return {"labels": drawn() if labels is None else torch.tensor(labels), "tokens": codes}


def state_dict(weights: Weights, quantiser: Weights) -> Weights:
    return prefixed("var_wo_ddp", weights) | prefixed("vae_local", quantiser)


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
    io = random_inputs(config, batch, generator, labels)
    fed = inputs(config, quantiser, io["tokens"])
    logits = decode(config, weights, io["labels"], torch.cat(fed, dim=1), sampling["cfg"])
    io |= {"f_hat": add_up(config, quantiser, io["tokens"])[-1], **numbered("next_input", fed)}
    io |= decode_steps(config, logits)
    state = state_dict(weights, quantiser)
    return recording("var", "decode", name, io, config, sampling, state, unsaid=unsaid)


def taught(
    name: str,
    sides: Sequence[int] = (1, 2, 3, 4),
    batch: int = 2,
    seed: int = 0,
    labels: list[int] | None = None,
    dropped: list[bool] | None = None,
    unsaid: Sequence[str] = (),
    **changes: Any,
) -> Golden:
    config, generator = small_config(sides, **changes), seeded(seed)
    quantiser, weights = quantiser_weights(config, generator), transformer_weights(config, generator)
    io = random_inputs(config, batch, generator, labels) | label_drops(dropped)
    features = torch.cat(inputs(config, quantiser, io["tokens"]), dim=1)
    logits = forward(config, weights, taught_labels(io, NO_CLASS), features)
    io |= {"teacher_input": features, "logits": logits, "loss": cross_entropy(logits, io["tokens"])}
    state = state_dict(weights, quantiser)
    return recording("var", "loss", name, io, config, weights=state, unsaid=unsaid)


DEFAULTS = {
    "sides": [1, 2, 3, 4, 5, 6, 8, 10, 13, 16],
    "unsaid": ("patch_nums", "quant_resi", "share_quant_resi", "shared_aln", "attn_l2_norm"),
}
"""The published ones."""
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
    "defaults-unsaid": {**DEFAULTS, **NARROW},
}
LOSSES: dict[str, dict[str, Any]] = {
    "three-quarters-of-the-convolution": {"quant_resi": 0.75, "sides": (1, 2, 4, 5, 6)},
    "some-labels-dropped": {"batch": 3, "dropped": [True, False, True]},
    "labels-that-are-no-class": {"labels": [-1, 5, 3, 1], "batch": 4, "dropped": [False] * 3 + [True]},
    "defaults-unsaid": {**DEFAULTS, **NARROW},
}

CASES: dict[str, Callable[[], Golden]] = {
    f"{kind}-{name}": partial(make, name, **{"seed": seed, **setting})
    for kind, make, settings in (("decode", decoded, DECODES), ("loss", taught, LOSSES))
    for seed, (name, setting) in enumerate(settings.items())
}
