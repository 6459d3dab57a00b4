"""A naive MaskGIT (Chang et al., arXiv 2202.04200; with classes by Besnier et al., arXiv 2310.14400) with the
Halton scheduler (arXiv 2503.17076), from the specification alone.

Every step feeds the whole grid; logits are in single precision, as recorded.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.naive.parts import (
    Config,
    Tensors,
    Weights,
    cross_entropy,
    dot_product_attention,
    feed_forward,
    label_drops,
    linear,
    linear_weights,
    norm_scale,
    norm_weights,
    normal,
    recorded_steps,
    recording,
    seeded,
    silu,
    taught_labels,
    weight,
)
from tests.replays.common import Golden

EPSILON = 1e-5


def small_config(side: int, **changes: Any) -> Config:
    return {
        "input_size": side,
        "hidden_dim": 32,
        "codebook_size": 40,
        "depth": 2,
        "heads": 4,
        "mlp_dim": 128,
        "dropout": 0.0,
        "nclass": 5,
        "register": 1,
        "proj": 1,
        **changes,
    }


def network_weights(config: Config, generator: torch.Generator) -> Weights:
    width, codes, places = config["hidden_dim"], config["codebook_size"], config["input_size"] ** 2
    attended = config["heads"] * (width // config["heads"])
    hidden = 256 * math.ceil(int(2 * config["mlp_dim"] / 3) / 256)
    inner, outer = width**-0.5, hidden**-0.5
    weights = {
        "cls_emb.weight": normal(generator, config["nclass"] + 1, width),
        "tok_emb.weight": normal(generator, codes + 1, width, scale=inner),
        "pos_emb.weight": normal(generator, places, width, scale=inner),
        **norm_weights("last_norm.norm_final", width, generator),
        **linear_weights("last_norm.mlp.1", width, 2 * width, generator, scale=0.5),
        "head.bias": normal(generator, codes + 1),
    }
    weights["head.weight"] = weights["tok_emb.weight"]
    if config["register"] > 0:
        weights["reg_tokens.weight"] = normal(generator, config["register"], width, scale=inner)
    for block in range(config["depth"]):
        of_block = {
            **linear_weights("mlp.1", width, 6 * width, generator, scale=0.5),
            "ln1.weight": norm_scale(generator, width),
            "ln2.weight": norm_scale(generator, width),
            "attn.wo.weight": normal(generator, width, attended, scale=attended**-0.5),
            "ff.w2.weight": normal(generator, width, hidden, scale=outer),
        }
        for part in "qkv":
            of_block[f"attn.w{part}.weight"] = normal(generator, attended, width, scale=inner)
        for part in "13":
            of_block[f"ff.w{part}.weight"] = normal(generator, hidden, width, scale=inner)
        weights |= {f"transformer.layers.{block}.{name}": value for name, value in of_block.items()}
    return weights


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + EPSILON).sqrt()


def modulation(weights: Weights, name: str, condition: Tensor, parts: int) -> Sequence[Tensor]:
    """Vectors [B, 1, d] of the class vectors [B, d]."""
    return linear(weights, f"{name}.mlp.1", silu(condition)).unsqueeze(1).chunk(parts, dim=-1)


def attention(config: Config, weights: Weights, name: str, x: Tensor) -> Tensor:
    """Attention of all of x [B, n, d] to all; queries and keys are normalised over their heads together."""
    q, k, v = (x @ weight(weights, f"{name}.w{part}").T for part in "qkv")  # [B, n, H D]
    q, k, v = (part.unflatten(-1, (config["heads"], -1)) for part in (rms(q), rms(k), v))  # [B, n, H, D]
    return dot_product_attention(q, k, v) @ weight(weights, f"{name}.wo").T


def forward(config: Config, weights: Weights, labels: Tensor, codes: Tensor) -> Tensor:
    """Logits [B, N, V + 1] of labels [B] and codes [B, N], where V is the mask."""
    condition = weight(weights, "cls_emb")[labels]  # [B, d]
    x = weight(weights, "tok_emb")[codes] + weight(weights, "pos_emb")
    if config["register"] > 0:
        x = torch.cat([x, weight(weights, "reg_tokens").expand(len(x), -1, -1)], dim=1)
    for block in range(config["depth"]):
        name = f"transformer.layers.{block}"
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation(weights, name, condition, 6)
        normed = rms(x) * weight(weights, f"{name}.ln1") * (1 + scale1) + shift1
        x = x + gate1 * attention(config, weights, f"{name}.attn", normed)
        normed = rms(x) * weight(weights, f"{name}.ln2") * (1 + scale2) + shift2
        x = x + gate2 * feed_forward(weights, f"{name}.ff", normed)
    x = rms(x[:, : codes.shape[1]]) * weight(weights, "last_norm.norm_final")
    shift, scale = modulation(weights, "last_norm", condition, 2)
    x = (x + weights["last_norm.norm_final.bias"]) * (1 + scale) + shift
    return linear(weights, "head", x).float()


def guided_forward(
    config: Config, weights: Weights, labels: Tensor, codes: Tensor, guidance: float
) -> Tensor:
    with_class = forward(config, weights, labels, codes)
    if guidance == 0:
        return with_class
    no_class = forward(config, weights, torch.full_like(labels, config["nclass"]), codes)
    return (1 + guidance) * with_class - guidance * no_class


def radical_inverse(number: int, base: int) -> Fraction:
    """The digits of a number mirrored behind the point."""
    inverse, unit = Fraction(0), Fraction(1, base)
    while number > 0:
        number, digit = divmod(number, base)
        inverse, unit = inverse + digit * unit, unit / base
    return inverse


def halton_order(side: int) -> list[int]:
    """Raster places of a square grid by when the Halton sequence first comes to them."""
    order, number = list[int](), 0
    while len(order) < side**2:
        number += 1
        row, column = int(side * radical_inverse(number, 2)), int(side * radical_inverse(number, 3))
        if row * side + column not in order:
            order.append(row * side + column)
    return order


def rolled(order: Sequence[int], shift: int) -> list[int]:
    return [order[(place - shift) % len(order)] for place in range(len(order))]


def known_after(places: int, shares: Iterable[Tensor]) -> list[int]:
    """How many places are known after each step, at least one for each of the steps."""
    return [max(step, int(places * share)) for step, share in enumerate(shares, start=1)]


def halton_totals(places: int, steps: int) -> list[int]:
    shares = [1 - torch.tensor((step + 1) / steps).arccos() / (math.pi / 2) for step in range(steps)]
    return known_after(places, shares)


class Step(NamedTuple):
    """codes [B, N]: what the network was fed; logits [B, N, V + 1]; new, bool [B, N]: places revealed."""

    codes: Tensor
    logits: Tensor
    new: Tensor


def decode(
    config: Config, sampling: dict[str, Any], weights: Weights, labels: Tensor, tokens: Tensor, order: Tensor
) -> list[Step]:
    """By the order [B, N], of tokens [B, N] that are drawn."""
    codes, steps, before = torch.full_like(tokens, config["codebook_size"]), list[Step](), 0
    for total in halton_totals(tokens.shape[1], sampling["step"]):
        logits = guided_forward(config, weights, labels, codes, sampling["w"])
        new = torch.zeros_like(codes, dtype=torch.bool)
        for row, places in enumerate(order[:, before:total]):
            new[row, places] = True
        steps.append(Step(codes, logits, new))
        codes, before = torch.where(new, tokens, codes), total
    return steps


def random_inputs(config: Config, batch: int, generator: torch.Generator) -> Tensors:
    places, codes = config["input_size"] ** 2, config["codebook_size"]
    return {
        "labels": torch.randint(config["nclass"], (batch,), generator=generator),
        "tokens": torch.randint(codes, (batch, places), generator=generator),
    }


def revealed(steps: list[Step], positions: Sequence[Tensor]) -> Tensors:
    """What a decode records of steps by the positions [B, n] or [n] that each reveals."""
    logits = []
    for step, at in zip(steps, positions, strict=True):
        index = at.expand(len(step.logits), -1).unsqueeze(2).expand(-1, -1, step.logits.shape[2])
        logits.append(step.logits.gather(1, index))  # [B, n, V + 1]
    return recorded_steps(logits, positions)


def decoded(
    name: str,
    config: Config,
    sampling: dict[str, Any],
    batch: int = 2,
    rolls: list[int] | None = None,
    unsaid: tuple[str, ...] = (),
) -> Golden:
    """rolls: of each row's order."""
    generator = seeded(0)
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    io["order"] = torch.tensor(halton_order(config["input_size"]))  # [N]
    if rolls is not None:
        io["roll"] = torch.tensor(rolls)
        io["order"] = torch.tensor([rolled(io["order"].tolist(), roll) for roll in rolls])  # [B, N]
    sampling = {"sampler": "halton", "randomize": rolls is not None, **sampling}
    order = io["order"].expand(batch, -1)
    steps = decode(config, sampling, weights, io["labels"], io["tokens"], order)
    sizes = [int(step.new[0].sum()) for step in steps]
    io |= revealed(steps, io["order"].split(sizes, dim=-1))
    return recording("maskgit", "decode", name, io, config, sampling, weights, unsaid)


def taught(
    name: str, config: Config, hidden: float, batch: int = 2, dropped: list[bool] | None = None
) -> Golden:
    """hidden: share of the places that are masked."""
    generator = seeded(0)
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    io |= {"mask": torch.rand(io["tokens"].shape, generator=generator) < hidden, **label_drops(dropped)}
    codes = io["tokens"].masked_fill(io["mask"], config["codebook_size"])
    logits = forward(config, weights, taught_labels(io, config["nclass"]), codes)
    io |= {"logits": logits, "loss": cross_entropy(logits, io["tokens"])}
    return recording("maskgit", "loss", name, io, config, {}, weights)


def ordered(name: str, side: int, steps: int, rolls: list[int] | None = None) -> Golden:
    order, totals = halton_order(side), halton_totals(side**2, steps)
    sizes = [after - before for before, after in zip([0, *totals], totals, strict=False)]
    io = {
        "order": torch.tensor([rolled(order, roll) for roll in rolls or [0]]),
        "group_sizes": torch.tensor(sizes),
    }
    if rolls is not None:
        io["roll"] = torch.tensor(rolls)
    return recording("maskgit", "order", name, io, {"input_size": side}, {"step": steps})


SHARPENED = {
    "sm_temp_min": 1.0,
    "sm_temp_max": 1.2,
    "temp_pow": 2,
    "temp_warmup": 1,
    "top_k": 10,
    "sched_pow": 2.5,
}

MAKERS: dict[str, Callable[[str], Golden]] = {
    "halton-one-cell": partial(decoded, config=small_config(1), sampling={"w": 1.0, "step": 1}),
    "halton-no-register-one-block-one-head": partial(
        decoded, config=small_config(3, register=0, depth=1, heads=1), sampling={"w": 4.0, "step": 4}, batch=3
    ),
    "halton-rolled-odd-grid-3-registers-7-heads": partial(
        decoded, config=small_config(5, register=3, heads=7), sampling={"w": 0.3, "step": 6}, rolls=[24, 7]
    ),
    "halton-rolled-one-image-sharpened": partial(
        decoded, config=small_config(4), sampling={"w": 1.5, "step": 5, **SHARPENED}, batch=1, rolls=[3]
    ),
    "halton-one-per-step-unguided-wide-mlp": partial(
        decoded, config=small_config(3, mlp_dim=512), sampling={"w": 0, "step": 9}
    ),
    "halton-negative-guidance": partial(decoded, config=small_config(4), sampling={"w": -0.5, "step": 6}),
    "halton-one-step-class-cancelled-defaults-unsaid": partial(
        decoded,
        config=small_config(4),
        sampling={"w": -1.0, "step": 1},
        unsaid=("register", "dropout", "proj"),
    ),
    "loss-all-masked-none-dropped-dropout": partial(
        taught, config=small_config(5, dropout=0.1), hidden=1.0, dropped=[False, False]
    ),
    "loss-none-masked-no-register": partial(taught, config=small_config(3, register=0), hidden=0.0, batch=1),
    "loss-all-dropped-5-heads": partial(
        taught, config=small_config(3, heads=5), hidden=0.5, batch=3, dropped=[True, True, True]
    ),
    "order-rolled": partial(ordered, side=7, steps=9, rolls=[0, 5, 48]),
    "order-of-many-points-for-its-cells": partial(ordered, side=22, steps=22),
    "order-with-borders-in-base-3": partial(ordered, side=9, steps=20),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
