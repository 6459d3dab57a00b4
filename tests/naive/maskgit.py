"""A naive MaskGIT (Chang et al., arXiv 2202.04200; with classes by Besnier et al., arXiv 2310.14400) and its
Halton scheduler (arXiv 2503.17076), from the specification alone.

Both samplers feed the whole grid at every step; logits and all that is compared are in single precision, as
recorded.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.naive.parts import Config, Weights, cross_entropy, norm_scale, normal, recording, seeded, weight
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
        "last_norm.norm_final.weight": norm_scale(generator, width),
        "last_norm.norm_final.bias": normal(generator, width, scale=0.3),
        "last_norm.mlp.1.weight": normal(generator, 2 * width, width, scale=0.5 * inner),
        "last_norm.mlp.1.bias": normal(generator, 2 * width, scale=0.3),
        "head.bias": normal(generator, codes + 1),
    }
    weights["head.weight"] = weights["tok_emb.weight"]
    if config["register"] > 0:
        weights["reg_tokens.weight"] = normal(generator, config["register"], width, scale=inner)
    for block in range(config["depth"]):
        of_block = {
            "mlp.1.weight": normal(generator, 6 * width, width, scale=0.5 * inner),
            "mlp.1.bias": normal(generator, 6 * width, scale=0.3),
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


def silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + EPSILON).sqrt()


def modulation(weights: Weights, name: str, condition: Tensor, parts: int) -> Sequence[Tensor]:
    """Vectors [B, 1, d] of the class vectors [B, d]."""
    rows = silu(condition) @ weight(weights, f"{name}.mlp.1").T + weights[f"{name}.mlp.1.bias"]
    return rows.unsqueeze(1).chunk(parts, dim=-1)


def attention(config: Config, weights: Weights, name: str, x: Tensor) -> Tensor:
    """Attention of all of x [B, n, d] to all; queries and keys are normalised over their heads together."""
    q, k, v = (x @ weight(weights, f"{name}.w{part}").T for part in "qkv")  # [B, n, H D]
    q, k, v = (part.unflatten(-1, (config["heads"], -1)) for part in (rms(q), rms(k), v))  # [B, n, H, D]
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
    attended = torch.einsum("bhij,bjhd->bihd", scores.softmax(dim=-1), v).flatten(-2)
    return attended @ weight(weights, f"{name}.wo").T


def feed_forward(weights: Weights, name: str, x: Tensor) -> Tensor:
    gate, value = x @ weight(weights, f"{name}.w1").T, x @ weight(weights, f"{name}.w3").T
    return (silu(gate) * value) @ weight(weights, f"{name}.w2").T


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
    return (x @ weight(weights, "head").T + weights["head.bias"]).float()


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


def halton_totals(places: int, steps: int) -> list[int]:
    """How many places are known after each step."""
    shares = [1 - torch.tensor((step + 1) / steps).arccos() / (math.pi / 2) for step in range(steps)]
    return [max(step + 1, int(places * share)) for step, share in enumerate(shares)]


def confidence_totals(places: int, steps: int, schedule: str) -> list[int]:
    """How many places are known after each step."""
    ratio = torch.linspace(0, 1, steps)
    shares = {
        "arccos": 1 - ratio.arccos() / (math.pi / 2),
        "cosine": 1 - (ratio * (math.pi / 2)).cos(),
        "linear": ratio,
        "square": ratio**2,
        "root": ratio.sqrt(),
    }[schedule]
    return [max(step + 1, int(places * share)) for step, share in enumerate(shares)]


class Step(NamedTuple):
    """codes [B, N]: what the network was fed; logits [B, N, V + 1]; new, bool [B, N]: places revealed."""

    codes: Tensor
    logits: Tensor
    new: Tensor


def halton_decode(
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


def confidence_decode(
    config: Config,
    sampling: dict[str, Any],
    weights: Weights,
    labels: Tensor,
    drawn: Tensor,
    gumbel: Tensor,
) -> tuple[list[Step], Tensor]:
    """Steps and final codes [B, N], of tokens [S, B, N] that are drawn and noise [S, B, N].

    Known places take what is drawn anew at every step, as published.
    """
    mask, count = config["codebook_size"], sampling["step"]
    totals = confidence_totals(drawn.shape[2], count, sampling.get("sched_mode", "arccos"))
    codes, steps = torch.full_like(drawn[0], mask), list[Step]()
    for step, total in enumerate(totals):
        ratio = step / (count - 1)
        logits = guided_forward(config, weights, labels, codes, sampling["w"] * ratio)
        chance = (logits * sampling.get("sm_temp", 1.0)).softmax(dim=-1)
        confidence = chance.gather(2, drawn[step].unsqueeze(2)).squeeze(2)  # [B, N]
        if sampling.get("randomize", "linear") == "linear":
            noise = sampling.get("r_temp", 4.5) * gumbel[step].double() * (1 - ratio)
            confidence = confidence.log() + noise
        known = codes != mask
        confidence = confidence.masked_fill(known, math.inf)
        threshold = confidence.sort(dim=1, descending=True).values[:, total - 1]
        accepted = confidence >= threshold[:, None]
        steps.append(Step(codes, logits, accepted & ~known))
        codes = torch.where(accepted, drawn[step], codes)
    return steps, codes.clamp(max=mask - 1)


def random_inputs(config: Config, batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    places, codes = config["input_size"] ** 2, config["codebook_size"]
    return {
        "labels": torch.randint(config["nclass"], (batch,), generator=generator),
        "tokens": torch.randint(codes, (batch, places), generator=generator),
    }


def standard_gumbel(generator: torch.Generator, *shape: int) -> Tensor:
    uniform = torch.rand(shape, generator=generator).double().clamp(1e-6, 1 - 1e-6)
    return -(-uniform.log()).log().float()


def recorded_steps(steps: list[Step], positions: list[Tensor]) -> dict[str, Tensor]:
    """positions: int [B, n] or [n], of each step."""
    io = dict[str, Tensor]()
    for number, (step, at) in enumerate(zip(steps, positions, strict=True)):
        index = at.expand(len(step.logits), -1).unsqueeze(2).expand(-1, -1, step.logits.shape[2])
        io |= {f"step_positions.{number}": at, f"step_logits.{number}": step.logits.gather(1, index)}
    return io


def leaving_out(names: dict[str, Any], unsaid: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in names.items() if key not in unsaid}


def decoded_by_halton(
    name: str,
    config: Config,
    sampling: dict[str, Any],
    batch: int = 2,
    rolls: list[int] | None = None,
    unsaid: tuple[str, ...] = (),
) -> Golden:
    """rolls: of each row's order; unsaid: hyper-parameters at their published defaults, which the recording
    leaves out."""
    generator = seeded(0)
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    io["order"] = torch.tensor(halton_order(config["input_size"]))  # [N]
    if rolls is not None:
        io["roll"] = torch.tensor(rolls)
        io["order"] = torch.tensor([rolled(io["order"].tolist(), roll) for roll in rolls])  # [B, N]
    sampling = {"sampler": "halton", "randomize": rolls is not None, **sampling}
    order = io["order"].expand(batch, -1)
    steps = halton_decode(config, sampling, weights, io["labels"], io["tokens"], order)
    sizes = [int(step.new[0].sum()) for step in steps]
    io |= recorded_steps(steps, list(io["order"].split(sizes, dim=-1)))
    return recording("maskgit", "decode", name, io, leaving_out(config, unsaid), sampling, weights)


def decoded_by_confidence(
    name: str,
    config: Config,
    sampling: dict[str, Any],
    batch: int = 2,
    one_axis: bool = False,
    unsaid: tuple[str, ...] = (),
) -> Golden:
    """one_axis: positions of a single image are recorded without their batch axis."""
    generator, count = seeded(0), sampling["step"]
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    drawn = io["tokens"].expand(count, -1, -1)
    gumbel = standard_gumbel(generator, *drawn.shape)
    steps, codes = confidence_decode(config, sampling, weights, io["labels"], drawn, gumbel)
    assert torch.equal(codes, io["tokens"])
    positions = [step.new.nonzero()[:, 1].view(batch, -1) for step in steps]  # [B, n], ascending
    if one_axis:
        positions = [at[0] for at in positions]
    io |= {"order": torch.cat(positions, dim=-1), **recorded_steps(steps, positions)}
    if sampling.get("randomize", "linear") == "linear":
        io["gumbel"] = gumbel
    sampling = {"sampler": "confidence", **sampling}
    return recording("maskgit", "decode", name, io, leaving_out(config, unsaid), sampling, weights)


def resampled(
    name: str,
    config: Config,
    sampling: dict[str, Any],
    batch: int = 2,
    masks_drawn: bool = False,
    certain: int | None = None,
) -> Golden:
    """Other tokens drawn at each step; certain: a code that has all of the probability everywhere, and is
    drawn half of the time."""
    generator, count, mask = seeded(0), sampling["step"], config["codebook_size"]
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    shape = (count, *io.pop("tokens").shape)
    drawn = torch.randint(mask + masks_drawn, shape, generator=generator)
    if certain is not None:
        weights["head.bias"][certain] += 150  # others' probability is then 0 in single precision
        drawn[torch.rand(shape, generator=generator) < 0.5] = certain
    gumbel = standard_gumbel(generator, *shape)
    steps, codes = confidence_decode(config, sampling, weights, io["labels"], drawn, gumbel)
    io |= {"sampled": drawn, "codes_in": torch.stack([step.codes for step in steps])}
    io |= {"final": codes, "logits_last": steps[-1].logits}
    if sampling.get("randomize", "linear") == "linear":
        io["gumbel"] = gumbel
    return recording("maskgit", "other", name, io, config, {"sampler": "confidence", **sampling}, weights)


def taught(
    name: str, config: Config, hidden: float, batch: int = 2, dropped: list[bool] | None = None
) -> Golden:
    """hidden: share of the places that are masked."""
    generator = seeded(0)
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    io["mask"] = torch.rand(io["tokens"].shape, generator=generator) < hidden
    labels = io["labels"]
    if dropped is not None:
        io["label_dropped"] = torch.tensor(dropped)
        labels = torch.where(io["label_dropped"], config["nclass"], labels)
    logits = forward(config, weights, labels, io["tokens"].masked_fill(io["mask"], config["codebook_size"]))
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


def scheduled(name: str, counts: list[tuple[int, int]]) -> Golden:
    """Totals by every schedule, of counts of sides and steps."""
    totals = {f"halton.S{steps}.n{side}": halton_totals(side**2, steps) for side, steps in counts}
    for schedule in ("arccos", "cosine", "linear", "square", "root"):
        for side, steps in counts:
            if steps > 1:
                case = f"confidence.{schedule}.S{steps}.n{side}"
                totals[case] = confidence_totals(side**2, steps, schedule)
    io = {case: torch.tensor(known) for case, known in totals.items()}
    return recording("maskgit", "other", name, io)


SHARPENED = {
    "sm_temp_min": 1.0,
    "sm_temp_max": 1.2,
    "temp_pow": 2,
    "temp_warmup": 1,
    "top_k": 10,
    "sched_pow": 2.5,
}
NO_NOISE = {"randomize": "none"}
COUNTS = [(side, steps) for side in (1, 2, 3, 5, 7) for steps in range(1, side**2 + 1)]
LARGE_COUNTS = [(12, 12), (16, 141), (18, 24), (24, 40), (27, 30), (48, 96)]

MAKERS: dict[str, Callable[[str], Golden]] = {
    "halton-one-cell": partial(decoded_by_halton, config=small_config(1), sampling={"w": 1.0, "step": 1}),
    "halton-no-register-one-block-one-head": partial(
        decoded_by_halton,
        config=small_config(3, register=0, depth=1, heads=1),
        sampling={"w": 4.0, "step": 4},
        batch=3,
    ),
    "halton-rolled-odd-grid-3-registers-7-heads": partial(
        decoded_by_halton,
        config=small_config(5, register=3, heads=7),
        sampling={"w": 0.3, "step": 6},
        rolls=[24, 7],
    ),
    "halton-rolled-one-image-sharpened": partial(
        decoded_by_halton,
        config=small_config(4),
        sampling={"w": 1.5, "step": 5, **SHARPENED},
        batch=1,
        rolls=[3],
    ),
    "halton-one-per-step-unguided-wide-mlp": partial(
        decoded_by_halton, config=small_config(3, mlp_dim=512), sampling={"w": 0, "step": 9}
    ),
    "halton-negative-guidance": partial(
        decoded_by_halton, config=small_config(4), sampling={"w": -0.5, "step": 6}
    ),
    "halton-one-step-class-cancelled-defaults-unsaid": partial(
        decoded_by_halton,
        config=small_config(4),
        sampling={"w": -1.0, "step": 1},
        unsaid=("register", "dropout", "proj"),
    ),
    "confidence-linear": partial(
        decoded_by_confidence,
        config=small_config(5),
        sampling={"w": 3.0, "step": 9, "sched_mode": "linear"},
        batch=3,
    ),
    "confidence-square-unguided": partial(
        decoded_by_confidence,
        config=small_config(4, register=0),
        sampling={"w": 0, "step": 7, "sched_mode": "square", "r_temp": 12.0},
    ),
    "confidence-root-steps-that-reveal-nothing": partial(
        decoded_by_confidence,
        config=small_config(4),
        sampling={"w": 1.0, "step": 16, "sched_mode": "root"},
    ),
    "confidence-cosine-one-per-step-dropout": partial(
        decoded_by_confidence,
        config=small_config(3, dropout=0.1),
        sampling={"w": -0.7, "step": 9, "sched_mode": "cosine"},
    ),
    "confidence-two-steps-no-noise": partial(
        decoded_by_confidence, config=small_config(4), sampling={"w": 5.0, "step": 2, **NO_NOISE}
    ),
    "confidence-unknown-noise-is-none-7-heads": partial(
        decoded_by_confidence,
        config=small_config(4, heads=7),
        sampling={"w": 2.5, "step": 6, "randomize": "prob"},
    ),
    "confidence-flattened-no-noise": partial(
        decoded_by_confidence,
        config=small_config(4),
        sampling={"w": 2.0, "step": 6, "sm_temp": 0.3, **NO_NOISE},
    ),
    "confidence-sharpened-little-noise": partial(
        decoded_by_confidence,
        config=small_config(4),
        sampling={"w": 2.0, "step": 6, "sm_temp": 3.0, "r_temp": 0.5},
    ),
    "confidence-one-image-one-axis-defaults-unsaid": partial(
        decoded_by_confidence,
        config=small_config(4),
        sampling={"w": 2.0, "step": 6},
        batch=1,
        one_axis=True,
        unsaid=("register", "dropout", "proj"),
    ),
    "resampled-unguided-no-noise": partial(
        resampled,
        config=small_config(3),
        sampling={"w": 0, "step": 5, "sched_mode": "linear", **NO_NOISE},
        batch=3,
    ),
    "resampled-sharpened-no-noise": partial(
        resampled, config=small_config(4), sampling={"w": 2.0, "step": 6, "sm_temp": 3.0, **NO_NOISE}
    ),
    "resampled-unguided-two-steps-one-image": partial(
        resampled, config=small_config(4), sampling={"w": 0, "step": 2}, batch=1
    ),
    "resampled-steps-that-reveal-nothing": partial(
        resampled, config=small_config(4), sampling={"w": 1.0, "step": 16, "sched_mode": "root"}
    ),
    "resampled-masks-drawn": partial(
        resampled,
        config=small_config(4, codebook_size=5),
        sampling={"w": 1.0, "step": 8},
        masks_drawn=True,
    ),
    "resampled-ties-at-the-threshold": partial(
        resampled,
        config=small_config(4),
        sampling={"w": 1.0, "step": 6, "sched_mode": "square", **NO_NOISE},
        certain=3,
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
    "schedules-of-every-count": partial(scheduled, counts=COUNTS),
    "schedules-of-large-counts": partial(scheduled, counts=LARGE_COUNTS),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
