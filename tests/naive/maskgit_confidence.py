"""A naive MaskGIT (arXiv 2202.04200) that reveals by confidence, from the specification alone.

All that is compared is in single precision, as recorded.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.maskgit import (
    Step,
    guided_forward,
    halton_totals,
    known_after,
    network_weights,
    random_inputs,
    revealed,
    small_config,
)
from tests.naive.parts import Config, Tensors, Weights, recording, seeded
from tests.replays.common import Golden


def confidence_totals(places: int, steps: int, schedule: str) -> list[int]:
    ratio = torch.linspace(0, 1, steps)
    shares = {
        "arccos": 1 - ratio.arccos() / (math.pi / 2),
        "cosine": 1 - (ratio * (math.pi / 2)).cos(),
        "linear": ratio,
        "square": ratio**2,
        "root": ratio.sqrt(),
    }[schedule]
    return known_after(places, shares)


def has_noise(sampling: dict[str, Any]) -> bool:
    return sampling.get("randomize", "linear") == "linear"


def decode(
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
        if has_noise(sampling):
            noise = sampling.get("r_temp", 4.5) * gumbel[step].double() * (1 - ratio)
            confidence = confidence.log() + noise
        known = codes != mask
        confidence = confidence.masked_fill(known, math.inf)
        threshold = confidence.sort(dim=1, descending=True).values[:, total - 1]
        accepted = confidence >= threshold[:, None]
        steps.append(Step(codes, logits, accepted & ~known))
        codes = torch.where(accepted, drawn[step], codes)
    return steps, codes.clamp(max=mask - 1)


def standard_gumbel(generator: torch.Generator, *shape: int) -> Tensor:
    uniform = torch.rand(shape, generator=generator).double().clamp(1e-6, 1 - 1e-6)
    return -(-uniform.log()).log().float()


def recorded(
    kind: str,
    name: str,
    io: Tensors,
    gumbel: Tensor,
    config: Config,
    sampling: dict[str, Any],
    weights: Weights,
    unsaid: tuple[str, ...] = (),
) -> Golden:
    """With the noise, where it counts."""
    io |= {"gumbel": gumbel} if has_noise(sampling) else {}
    sampling = {"sampler": "confidence", **sampling}
    return recording("maskgit", kind, name, io, config, sampling, weights, unsaid)


def decoded(
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
    steps, codes = decode(config, sampling, weights, io["labels"], drawn, gumbel)
    assert torch.equal(codes, io["tokens"])
    positions = [step.new.nonzero()[:, 1].view(batch, -1) for step in steps]  # [B, n], ascending
    if one_axis:
        positions = [at[0] for at in positions]
    io |= {"order": torch.cat(positions, dim=-1), **revealed(steps, positions)}
    return recorded("decode", name, io, gumbel, config, sampling, weights, unsaid)


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
    steps, codes = decode(config, sampling, weights, io["labels"], drawn, gumbel)
    io |= {"sampled": drawn, "codes_in": torch.stack([step.codes for step in steps])}
    io |= {"final": codes, "logits_last": steps[-1].logits}
    return recorded("other", name, io, gumbel, config, sampling, weights)


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


NO_NOISE = {"randomize": "none"}
COUNTS = [(side, steps) for side in (1, 2, 3, 5, 7) for steps in range(1, side**2 + 1)]
LARGE_COUNTS = [(12, 12), (16, 141), (18, 24), (24, 40), (27, 30), (48, 96)]

MAKERS: dict[str, Callable[[str], Golden]] = {
    "confidence-linear": partial(
        decoded, config=small_config(5), sampling={"w": 3.0, "step": 9, "sched_mode": "linear"}, batch=3
    ),
    "confidence-square-unguided": partial(
        decoded,
        config=small_config(4, register=0),
        sampling={"w": 0, "step": 7, "sched_mode": "square", "r_temp": 12.0},
    ),
    "confidence-root-steps-that-reveal-nothing": partial(
        decoded, config=small_config(4), sampling={"w": 1.0, "step": 16, "sched_mode": "root"}
    ),
    "confidence-cosine-one-per-step-dropout": partial(
        decoded, config=small_config(3, dropout=0.1), sampling={"w": -0.7, "step": 9, "sched_mode": "cosine"}
    ),
    "confidence-two-steps-no-noise": partial(
        decoded, config=small_config(4), sampling={"w": 5.0, "step": 2, **NO_NOISE}
    ),
    "confidence-unknown-noise-is-none-7-heads": partial(
        decoded, config=small_config(4, heads=7), sampling={"w": 2.5, "step": 6, "randomize": "prob"}
    ),
    "confidence-flattened-no-noise": partial(
        decoded, config=small_config(4), sampling={"w": 2.0, "step": 6, "sm_temp": 0.3, **NO_NOISE}
    ),
    "confidence-sharpened-little-noise": partial(
        decoded, config=small_config(4), sampling={"w": 2.0, "step": 6, "sm_temp": 3.0, "r_temp": 0.5}
    ),
    "confidence-one-image-one-axis-defaults-unsaid": partial(
        decoded,
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
        resampled, config=small_config(4, codebook_size=5), sampling={"w": 1.0, "step": 8}, masks_drawn=True
    ),
    "resampled-ties-at-the-threshold": partial(
        resampled,
        config=small_config(4),
        sampling={"w": 1.0, "step": 6, "sched_mode": "square", **NO_NOISE},
        certain=3,
    ),
    "schedules-of-every-count": partial(scheduled, counts=COUNTS),
    "schedules-of-large-counts": partial(scheduled, counts=LARGE_COUNTS),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
