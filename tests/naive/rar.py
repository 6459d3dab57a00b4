"""A naive RAR (Yu et al., arXiv 2411.00776) from the specification alone.

A decode whose tokens are all known is one causal pass over them in raster order; guidance grows from step to
step. All arithmetic is in double precision but the power and the cosine of guidance, which are published in
single precision.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.parts import (
    Config,
    Tensors,
    Weights,
    causal_mask,
    cross_entropy,
    dot_product_attention,
    gelu_feed_forward,
    guided,
    label_drops,
    layer_norm,
    linear,
    linear_weights,
    norm_weights,
    normal,
    normalised,
    recorded_steps,
    recording,
    seeded,
    silu,
    taught_labels,
    weight,
)
from tests.replays.common import Golden

EPSILON = 1e-6
"""Of all norms."""


def rar_config(places: int, **changes: Any) -> Config:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "dropout": 0.1,
        "attn_drop": 0.1,
        "image_seq_len": places,
        "condition_num_classes": 6,
        "codebook_size": 45,
        **changes,
    }


def hidden_width(config: Config) -> int:
    """Of the MLP: through a ratio of floating-point numbers, which may lose 1."""
    return int(config["hidden_size"] * (config["intermediate_size"] / config["hidden_size"]))


def block_weights(config: Config, index: int, generator: torch.Generator) -> Weights:
    width, hidden, name = config["hidden_size"], hidden_width(config), f"blocks.{index}"
    head_width = width // config["num_attention_heads"]
    norm = partial(norm_weights, generator=generator, offset=0.2)
    linear = partial(linear_weights, generator=generator, offset=0.2)
    return {
        **norm(f"{name}.norm1", width),
        **norm(f"{name}.norm2", width),
        **linear(f"{name}.attn.qkv", width, 3 * width),
        **norm(f"{name}.attn.q_norm", head_width),
        **norm(f"{name}.attn.k_norm", head_width),
        **linear(f"{name}.attn.proj", width, width),
        **linear(f"{name}.mlp.fc1", width, hidden),
        **linear(f"{name}.mlp.fc2", hidden, width),
        **linear(f"{name}.adaLN_modulation.1", width, 6 * width, scale=0.5),
    }


def rar_weights(config: Config, generator: torch.Generator) -> Weights:
    """The published state dict. Ids are codes, the mask id, classes and the null class."""
    width, places, codes = config["hidden_size"], config["image_seq_len"], config["codebook_size"]
    linear = partial(linear_weights, generator=generator, offset=0.2)
    weights = {
        **linear("adaln_before_head.adaLN_modulation.1", width, 2 * width, scale=0.5),
        **linear("lm_head", width, codes, scale=1.2),
        "cls_token": normal(generator, 1, 1, width),
        "pos_embed": normal(generator, 1, places + 1024, width, scale=0.7),
        "target_aware_pos_embed": normal(generator, 1, places + 1024, width, scale=0.7),
        "timesteps_embeddings": normal(generator, 1, places + 100, width, scale=0.7),
        "embeddings.weight": normal(generator, codes + 1 + config["condition_num_classes"] + 1, width),
    }
    for index in range(config["num_hidden_layers"]):
        weights |= block_weights(config, index, generator)
    return weights


def class_ids(config: Config, labels: Tensor) -> Tensor:
    """Rows of the embedding table; the null class is the label behind the last."""
    return config["codebook_size"] + 1 + labels


def inputs(config: Config, weights: Weights, labels: Tensor, tokens: Tensor, order: Tensor) -> Tensor:
    """Vectors [B, N + 2, d] of the start, the class, and the tokens [B, N] in the order [B, N].

    Each stands at its own cell; all but the first and the last also say which cell they predict.
    """
    table = weight(weights, "embeddings")
    own, target = weights["pos_embed"][0].double(), weights["target_aware_pos_embed"][0].double()
    start = weights["cls_token"][0, 0].double() + own[0]
    sequence = [
        start.expand(len(labels), -1),
        table[class_ids(config, labels)] + own[1] + target[2 + order[:, 0]],
    ]
    codes, places = tokens.gather(1, order), config["image_seq_len"]
    for place in range(places):
        x = table[codes[:, place]] + own[2 + order[:, place]]
        if place + 1 < places:
            x = x + target[2 + order[:, place + 1]]
        sequence.append(x)
    return torch.stack(sequence, dim=1)


def conditions(config: Config, weights: Weights, labels: Tensor) -> Tensor:
    """What modulates each position of the sequence, [B, N + 2, d]: its class and its index, not its cell."""
    of_class = weight(weights, "embeddings")[class_ids(config, labels)]  # [B, d]
    of_index = weights["timesteps_embeddings"][0, : config["image_seq_len"] + 2].double()
    return silu(of_class.unsqueeze(1) + of_index)


def attention(config: Config, weights: Weights, name: str, x: Tensor) -> Tensor:
    """Causal attention of x [B, n, d]."""
    heads = config["num_attention_heads"]
    parts = linear(weights, f"{name}.qkv", x).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in parts)  # [B, n, H, D]
    q = layer_norm(weights, f"{name}.q_norm", q, EPSILON)
    k = layer_norm(weights, f"{name}.k_norm", k, EPSILON)
    attended = dot_product_attention(q, k, v, causal_mask(x.shape[1]))
    return linear(weights, f"{name}.proj", attended)


def block(config: Config, weights: Weights, index: int, x: Tensor, condition: Tensor) -> Tensor:
    name = f"blocks.{index}"
    modulation = linear(weights, f"{name}.adaLN_modulation.1", condition)
    attention_shift, attention_scale, attention_gate, shift, scale, gate = modulation.chunk(6, dim=-1)
    normed = layer_norm(weights, f"{name}.norm1", x, EPSILON) * (1 + attention_scale) + attention_shift
    x = x + attention_gate * attention(config, weights, f"{name}.attn", normed)
    normed = layer_norm(weights, f"{name}.norm2", x, EPSILON) * (1 + scale) + shift
    return x + gate * gelu_feed_forward(weights, f"{name}.mlp", normed)


def logits_of(config: Config, weights: Weights, labels: Tensor, tokens: Tensor, order: Tensor) -> Tensor:
    """Logits [B, N, V] in the order [B, N]; the start's and the last token's outputs are dropped."""
    x = inputs(config, weights, labels, tokens, order)
    condition = conditions(config, weights, labels)
    for index in range(config["num_hidden_layers"]):
        x = block(config, weights, index, x, condition)
    modulation = linear(weights, "adaln_before_head.adaLN_modulation.1", condition)
    scale, shift = modulation.chunk(2, dim=-1)  # the other way round than in the blocks
    return linear(weights, "lm_head", normalised(x, EPSILON) * (1 + scale) + shift)[:, 1:-1]


def guidance_weights(scale: float, power: float, places: int) -> Tensor:
    """Of every step, [N]: from 1 towards the scale; a power of 0 gives the scale itself."""
    progress = torch.arange(places, dtype=torch.float32) / places
    risen = (1 - torch.cos(torch.pi * progress**power)) / 2
    return (1 + (scale - 1) * risen).double()


def decode(
    config: Config, sampling: dict[str, Any], weights: Weights, labels: Tensor, tokens: Tensor
) -> Tensor:
    """Guided logits [B, N, V] of all steps; only a scale of 0 is no guidance."""
    order = torch.arange(config["image_seq_len"]).expand_as(tokens)
    logits = logits_of(config, weights, labels, tokens, order)
    scale = sampling["guidance_scale"]
    if scale == 0:
        return logits
    null = torch.full_like(labels, config["condition_num_classes"])
    without = logits_of(config, weights, null, tokens, order)
    growing = guidance_weights(scale, sampling["guidance_scale_pow"], config["image_seq_len"])
    return guided(logits, without, growing[:, None])


def random_inputs(config: Config, batch: int, generator: torch.Generator) -> Tensors:
    classes, shape = config["condition_num_classes"], (batch, config["image_seq_len"])
    return {
        "labels": torch.randint(classes, (batch,), generator=generator),
        "tokens": torch.randint(config["codebook_size"], shape, generator=generator),
    }


def decoded(
    name: str,
    places: int,
    seed: int,
    batch: int = 2,
    scale: float = 4.0,
    power: float = 1.5,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Golden:
    """settings: further ones of sampling."""
    config, generator = rar_config(places, **changes), seeded(seed)
    weights, io = rar_weights(config, generator), random_inputs(config, batch, generator)
    sampling = {"guidance_scale": scale, "guidance_scale_pow": power, **(settings or {})}
    logits = decode(config, sampling, weights, io["labels"], io["tokens"])
    order = torch.arange(places)
    io |= {"order": order, **recorded_steps(logits.split(1, dim=1), order.split(1))}
    return recording("rar", "decode", name, io, config, sampling, weights)


def taught(
    name: str, places: int, seed: int, batch: int = 2, dropped: list[bool] | None = None, **changes: Any
) -> Golden:
    """All rows but the first in random orders of their own."""
    config, generator = rar_config(places, **changes), seeded(seed)
    weights = rar_weights(config, generator)
    io = random_inputs(config, batch, generator) | label_drops(dropped)
    order = torch.stack(
        [torch.arange(places), *(torch.randperm(places, generator=generator) for _ in range(batch - 1))]
    )
    labels = taught_labels(io, config["condition_num_classes"])
    logits = logits_of(config, weights, labels, io["tokens"], order)
    loss = cross_entropy(logits, io["tokens"].gather(1, order))
    io |= {"order": order, "logits": logits, "loss": loss}
    return recording("rar", "loss", name, io, config, {}, weights)


MAKERS: dict[str, Callable[[str], Golden]] = {
    "guided-odd-grid-3-heads": partial(
        decoded, places=25, batch=3, seed=1, hidden_size=36, num_attention_heads=3
    ),
    "guided-no-square": partial(decoded, places=12, seed=2),
    "no-square-without-guidance": partial(decoded, places=7, seed=3, scale=0.0, power=0.0),
    "guided-one-token": partial(decoded, places=1, seed=4),
    "guided-two-tokens": partial(decoded, places=2, seed=5),
    "guided-one-layer-one-head-one-image": partial(
        decoded, places=9, batch=1, seed=6, num_hidden_layers=1, num_attention_heads=1
    ),
    "guided-heads-of-width-2": partial(decoded, places=9, seed=7, num_attention_heads=16),
    "guided-heads-of-width-5": partial(
        decoded, places=9, seed=8, hidden_size=35, num_attention_heads=7, intermediate_size=105
    ),
    "guided-mlp-one-narrower-than-said": partial(
        decoded, places=4, seed=9, hidden_size=56, intermediate_size=244
    ),
    "guided-one-class-one-code": partial(
        decoded, places=4, seed=10, condition_num_classes=1, codebook_size=1
    ),
    "guided-many-images": partial(decoded, places=4, batch=40, seed=11),
    "power-0-is-constant": partial(decoded, places=9, seed=12, power=0.0),
    "power-below-1": partial(decoded, places=9, seed=13, scale=8.0, power=0.1),
    "power-1": partial(decoded, places=9, seed=14, power=1.0),
    "scale-1": partial(decoded, places=9, seed=15, scale=1.0, power=2.5),
    "scale-half-guides": partial(decoded, places=9, seed=16, scale=0.5, power=1.0),
    "published-scale-16": partial(decoded, places=36, batch=1, seed=17, scale=16.0, power=2.75),
    "no-cache-and-temperature": partial(
        decoded, places=9, seed=18, settings={"kv_cache": False, "randomize_temperature": 1.02}
    ),
    "loss-all-labels-dropped": partial(taught, places=9, seed=19, dropped=[True, True]),
    "loss-no-label-dropped-odd-grid": partial(
        taught, places=25, seed=20, dropped=[False, False], hidden_size=36, num_attention_heads=3
    ),
    "loss-one-token": partial(taught, places=1, seed=21),
    "loss-no-square": partial(taught, places=12, batch=3, seed=22, dropped=[False, True, False]),
    "loss-mlp-one-narrower-than-said": partial(
        taught, places=4, seed=23, hidden_size=56, intermediate_size=244
    ),
    "loss-heads-of-width-2-one-layer": partial(
        taught, places=9, seed=24, num_hidden_layers=1, num_attention_heads=16
    ),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
