"""The part of the contract that is about the sampling parts: what is drawn, and how strong guidance is.

Both are computed anew here, slowly and from the definitions.
"""

import math
from typing import Any

import torch
from torch import Tensor

from strategies.decoding.contract.recording import Case
from strategies.decoding.contract.requirements import close, require

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.5},
    {"temperature": 1.7},
    {"top_k": 3},
    {"top_p": 0.8},
    {"temperature": 1.7, "top_k": 5, "top_p": 0.9},
)
NUMBERS = 4096
"""Evenly spaced uniform numbers that a distribution is probed with."""


def check_sampler_draws_the_filtered_softmax(subject: Case) -> None:
    """Over all uniform numbers, tokens come as often as softmax(logits / temperature), top-k, top-p say."""
    codes = subject.config.codes
    generator = torch.Generator().manual_seed(3)
    logits = 2.0 * torch.randn(3, codes, generator=generator)  # [B, V]
    noise = (torch.arange(NUMBERS) + 0.5) / NUMBERS
    for settings in SETTINGS:
        sampler = subject.sampler((0, 1, 2), **settings)
        drawn, _ = sampler.draw(logits[:, None].repeat(1, NUMBERS, 1), noise.repeat(3, 1))  # [B, NUMBERS]
        inside = ((drawn >= 0) & (drawn < codes)).all()
        require(inside, f"{settings}: tokens outside 0..{codes - 1}")
        for row in range(3):
            found = torch.bincount(drawn[row], minlength=codes).double() / NUMBERS
            expected = filtered_softmax(logits[row], **settings)
            # One interval's ends may each fall between two numbers.
            close(found, expected, 2.0 / NUMBERS, f"{settings}: shares of tokens and the filtered softmax")


def filtered_softmax(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Probabilities [V] in float64: the k largest, of those the fewest that exceed top_p together."""
    weights = {code: math.exp(value / temperature) for code, value in enumerate(logits.tolist())}
    ranked = sorted(weights, key=lambda code: -weights[code])[: top_k or None]
    total = sum(weights[code] for code in ranked)
    kept, reached = [], 0.0
    for code in ranked:
        kept.append(code)
        reached += weights[code] / total
        if reached > top_p:
            break
    found = torch.zeros(len(logits), dtype=torch.float64)
    for code in kept:
        found[code] = weights[code] / sum(weights[other] for other in kept)
    return found


def check_guidance_scales(subject: Case) -> None:
    """By place: s, or 1 + (s - 1) ramp(progress); 1 where an interval of prediction counts has ended."""
    plan = subject.plan((0,))
    progress, count = torch.as_tensor(plan.progress), torch.as_tensor(plan.count)
    half_turns = 0.5 - 0.5 * torch.cos(math.pi * progress**2.75)
    for settings, ramp in (
        ({}, torch.ones_like(progress)),
        ({"schedule": "linear"}, progress),
        ({"schedule": "power-cosine", "power": 2.75}, half_turns),
    ):
        for scale in (0.0, 1.0, 3.5):
            expected = 1 + (scale - 1) * ramp
            weights = subject.guidance(scale, **settings).weights(plan)
            what = f"scales of guidance {scale} {settings} and their definition"
            close(torch.as_tensor(weights), expected, 1e-9, what)
            until = subject.guidance(scale, interval=4, **settings).weights(plan)
            expected = torch.where(count <= 4, expected, torch.ones_like(expected))
            close(torch.as_tensor(until), expected, 1e-9, f"{what}, up to prediction 4,")
