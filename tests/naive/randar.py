"""A naive RandAR (Pang et al., arXiv 2412.01827) from the specification alone.

Every step is one uncached causal pass over all that it reads: the class, an instruction and a token for each
place that is written, and the instructions of the places that the step asks for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tests.naive.parts import (
    GROUPED_NARROW,
    GROUPED_WIDE,
    OTHER_CONSTANTS,
    Config,
    Phases,
    Weights,
    causal_mask,
    cross_entropy,
    embed_class,
    embed_tokens,
    forward,
    grid_phases,
    guided,
    label_drops,
    network_weights,
    normal,
    null_labels,
    random_inputs,
    random_orders,
    recorded_steps,
    recording,
    rotate,
    seeded,
    small_config,
    taught_labels,
)
from tests.replays.common import Golden

Scales = tuple[float, float]
"""Of guidance, at the start and at the end."""


@dataclass(frozen=True)
class Canvas:
    """table: rotations of the class and the cells. order: [B, N]. images: vectors [B, N, d] of the tokens, in
    the order.
    """

    table: Phases
    order: Tensor
    images: Tensor


def randar_weights(config: Config, generator: torch.Generator) -> Weights:
    """LlamaGen's and the one instruction vector."""
    weights = network_weights(config, generator)
    return weights | {"pos_instruct_embeddings": normal(generator, 1, config["dim"])}


def phase_table(config: Config) -> Phases:
    """Rotations [1 + N, D / 2] of the class, which are zero, and of every cell."""
    return grid_phases(config, torch.arange(-1, config["block_size"]))


def phases_at(table: Phases, rows: Tensor) -> Phases:
    return table[0][rows], table[1][rows]


def instructions(config: Config, weights: Weights, table: Phases, order: Tensor) -> Tensor:
    """The instruction of every place of an order [B, N]: the vector, each head rotated for the cell."""
    heads = weights["pos_instruct_embeddings"].double().unflatten(-1, (config["n_head"], -1))  # [1, H, D]
    return rotate(heads.expand(*order.shape, -1, -1), phases_at(table, 1 + order)).flatten(-2)  # [B, N, d]


def network_logits(
    config: Config, weights: Weights, labels: Tensor, canvas: Canvas, written: int, asked: int
) -> Tensor:
    """Logits [B, 1 + 2 written + asked, V] of one causal pass.

    The sequence is the class, P_0, X_0, P_1, X_1, ... of the written places, and only P of those asked.
    """
    order = canvas.order
    instruction = instructions(config, weights, canvas.table, order)
    inputs, rows = [embed_class(weights, labels)], [torch.zeros_like(order[:, :1])]
    for place in range(written + asked):
        inputs.append(instruction[:, place : place + 1])
        rows.append(1 + order[:, place : place + 1])
        if place < written:
            inputs.append(canvas.images[:, place : place + 1])
            rows.append(1 + order[:, place : place + 1])
    x = torch.cat(inputs, dim=1)
    phases = phases_at(canvas.table, torch.cat(rows, dim=1))
    return forward(config, weights, x, phases, causal_mask(x.shape[1]))


def step_logits(
    config: Config, weights: Weights, labels: Tensor, canvas: Canvas, written: int, asked: int
) -> Tensor:
    """Logits [B, asked, V] of the places behind those written."""
    return network_logits(config, weights, labels, canvas, written, asked)[:, -asked:]


def taught_logits(config: Config, weights: Weights, labels: Tensor, tokens: Tensor, order: Tensor) -> Tensor:
    """Logits [B, N, V] in the order [B, N], of the sequence of training, read at its instructions."""
    canvas = Canvas(phase_table(config), order, embed_tokens(weights, tokens.gather(1, order)))
    return network_logits(config, weights, labels, canvas, config["block_size"], 0)[:, 1::2]


def group_sizes(places: int, steps: int, written: int = 0, old_loop: bool = False) -> list[int]:
    """Tokens of every step; the old loop ends before the last group. ``steps`` of -1: as many as places."""
    if steps == -1:
        steps = places
    end = places - 1 if old_loop else places
    sizes, size, finished = [], 1, 0
    while written <= end - size and written <= end - 1:
        sizes.append(size)
        finished += 1
        share = 1 - math.cos(((math.pi / 2) * (finished + 1)) / steps)
        target = min(math.trunc(share * places + 1), places)
        following = min(max(target - written - size, 1), places - written - size)
        written, size = written + size, following
    return sizes


def lengths_of_inputs(given: int, sizes: list[int]) -> list[int]:
    """Rows through the network at every step.

    A step's first instruction stays. Its tokens are fed, its other instructions once more between them, and
    the next step's instructions.
    """
    lengths = [1 + 2 * given + sizes[0]]
    for size, following in pairwise(sizes):
        lengths.append(2 * size - 1 + following)
    return lengths


def at_progress(scales: Scales, progress: float) -> float:
    return scales[0] + (scales[1] - scales[0]) * progress


def decode(
    config: Config,
    weights: Weights,
    labels: Tensor,
    canvas: Canvas,
    sizes: list[int],
    scales: Scales,
    given: int,
) -> list[Tensor]:
    """Guided logits [B, n, V] of every step behind the given places; progress counts from the first step."""
    steps, done = [], 0
    for size in sizes:
        logits = step_logits(config, weights, labels, canvas, given + done, size)
        if scales[1] > 1:
            null = null_labels(config, labels)
            without = step_logits(config, weights, null, canvas, given + done, size)
            logits = guided(logits, without, at_progress(scales, done / sum(sizes)))
        steps.append(logits)
        done += size
    return steps


def decoded(
    name: str,
    side: int,
    steps: int,
    seed: int,
    scales: Scales = (1.0, 4.0),
    batch: int = 2,
    given: int = 0,
    one_order: bool = False,
    **changes: Any,
) -> Golden:
    """given: how many cells are known; one_order: for all rows, recorded without an axis for them."""
    config, generator = small_config(side, **changes), seeded(seed)
    weights, io = randar_weights(config, generator), random_inputs(config, batch, generator)
    cells = torch.randperm(config["block_size"], generator=generator)
    known, unknown = cells[:given], cells[given:]
    order = random_orders(unknown, 1 if one_order else batch, generator).expand(batch, -1)
    whole = torch.cat([known.expand(batch, -1), order], dim=1)  # [B, N]
    canvas = Canvas(phase_table(config), whole, embed_tokens(weights, io["tokens"].gather(1, whole)))
    sizes = group_sizes(len(unknown), steps)
    logits = decode(config, weights, io["labels"], canvas, sizes, scales, given)
    recorded = order[0] if one_order else order
    io |= {"order": recorded, **recorded_steps(logits, recorded.split(sizes, dim=-1))}
    if given:
        io |= {"known_positions": known, "group_sizes": torch.tensor(sizes)}
    sampling = {
        "cfg_scales": list(scales),
        "num_inference_steps": steps,
        "input_lengths": lengths_of_inputs(given, sizes),
    }
    return recording("randar", "decode", name, io, config, sampling, weights)


def taught(
    name: str, side: int, seed: int, batch: int = 2, dropped: list[bool] | None = None, **changes: Any
) -> Golden:
    """Orders are not recorded where the hyper-parameters say raster."""
    config, generator = small_config(side, **changes), seeded(seed)
    weights = randar_weights(config, generator)
    io = random_inputs(config, batch, generator) | label_drops(dropped)
    order = torch.arange(config["block_size"]).expand(batch, -1)
    if config.get("position_order") != "raster":
        io["order"] = order = random_orders(order[0], batch, generator)
    labels = taught_labels(io, config["num_classes"])
    logits = taught_logits(config, weights, labels, io["tokens"], order)
    io |= {"logits": logits, "loss": cross_entropy(logits, io["tokens"].gather(1, order))}
    return recording("randar", "loss", name, io, config, {}, weights)


def scheduled(name: str, cases: list[tuple[int, int]]) -> Golden:
    """Group sizes for pairs of places and steps."""
    io = {f"group_sizes.{index}": torch.tensor(group_sizes(*case)) for index, case in enumerate(cases)}
    recorded = [{"positions": places, "num_inference_steps": steps} for places, steps in cases]
    return recording("randar", "other", name, io, sampling={"cases": recorded})


MAKERS: dict[str, Callable[[str], Golden]] = {
    "odd-grid-3-heads": partial(decoded, side=5, steps=7, seed=1, batch=3, dim=36, n_head=3),
    "one-layer-one-head-one-image": partial(
        decoded, side=3, steps=4, seed=2, batch=1, n_layer=1, n_head=1, dim=16
    ),
    "heads-of-width-4": partial(decoded, side=4, steps=6, seed=3, n_head=8),
    "one-order-for-all-rows": partial(decoded, side=4, steps=6, seed=4, batch=3, one_order=True),
    "scales-fall": partial(decoded, side=4, steps=5, seed=5, scales=(4.0, 1.5)),
    "scales-rise-from-0": partial(decoded, side=3, steps=6, seed=6, scales=(0.0, 3.0)),
    "scales-end-at-1-without-guidance": partial(decoded, side=4, steps=5, seed=7, scales=(4.0, 1.0)),
    "scales-end-below-1-without-guidance": partial(decoded, side=3, steps=5, seed=8, scales=(3.0, 0.5)),
    "one-cell": partial(decoded, side=1, steps=4, seed=10),
    "one-step-becomes-two": partial(decoded, side=3, steps=1, seed=11),
    "more-steps-than-cells": partial(decoded, side=2, steps=60, seed=13),
    "no-null-class": partial(
        decoded, side=3, steps=4, seed=14, scales=(1.0, 1.0), class_dropout_prob=0.0, num_classes=1
    ),
    "grouped-heads-and-width-multiplier": partial(decoded, side=4, steps=5, seed=15, **GROUPED_WIDE),
    "norm-epsilon-rotary-base-and-dropouts": partial(decoded, side=4, steps=5, seed=16, **OTHER_CONSTANTS),
    "inpainting": partial(decoded, side=5, steps=5, seed=17, given=7),
    "inpainting-of-one-cell": partial(decoded, side=3, steps=1, seed=19, given=8, scales=(2.0, 3.0)),
    "loss-all-labels-dropped": partial(taught, side=3, seed=20, dropped=[True, True]),
    "loss-no-label-dropped-odd-grid": partial(
        taught, side=5, seed=21, batch=1, dropped=[False], dim=36, n_head=3
    ),
    "loss-one-cell-no-null-class": partial(taught, side=1, seed=22, class_dropout_prob=0.0),
    "loss-raster": partial(taught, side=4, seed=23, position_order="raster"),
    "loss-grouped-heads-narrow-and-dropouts": partial(taught, side=3, seed=24, **GROUPED_NARROW),
    "sizes-of-few-places": partial(
        scheduled, cases=[(places, steps) for places in range(1, 26) for steps in (-1, *range(1, places + 3))]
    ),
    "sizes-where-the-last-bit-counts": partial(
        scheduled, cases=[(64, 39), (100, 75), (144, 87), (256, 126), (400, 51), (400, 88), (1024, 63)]
    ),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
