"""A naive RandAR (Pang et al., arXiv 2412.01827) from the specification alone.

Every step is one uncached causal pass over all that it reads: the class, an instruction and a token for each
place that is written, and the instructions of the places that the step asks for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tests.naive.parts import (
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
    network_weights,
    normal,
    null_labels,
    random_labels,
    random_tokens,
    recording,
    rotate,
    seeded,
    side_of,
    small_config,
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


def extrapolated_table(config: Config, boundary: int) -> Phases:
    """Rotations [1 + 4 N, D / 2] of the class and of a grid of twice the side.

    The ``boundary`` highest frequencies see its integer positions. The others see the trained range, spread
    evenly.
    """
    side, half = side_of(config), config["dim"] // config["n_head"] // 2
    spacing = (side - 1) / (2 * side - 1)
    rows = [[0.0] * half], [[0.0] * half]
    for cell in range(4 * side * side):
        angles = []
        for position in divmod(cell, 2 * side):
            for index in range(half // 2):
                seen = position if index < boundary else position * spacing
                angles.append(seen * config["rope_base"] ** (-2 * index / half))
        rows[0].append([math.cos(angle) for angle in angles])
        rows[1].append([math.sin(angle) for angle in angles])
    cosines, sines = (torch.tensor(table, dtype=torch.float64) for table in rows)
    return cosines, sines


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
        logits = network_logits(config, weights, labels, canvas, given + done, size)
        if scales[1] > 1:
            null = null_labels(config, labels)
            without = network_logits(config, weights, null, canvas, given + done, size)
            logits = guided(logits, without, at_progress(scales, done / sum(sizes)))
        steps.append(logits[:, -size:])
        done += size
    return steps


def random_orders(cells: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Orders [B, n] of the cells [n], one for each row of the batch."""
    return torch.stack([cells[torch.randperm(len(cells), generator=generator)] for _ in range(batch)])


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
    generator = seeded(seed)
    config = small_config(side, **changes)
    weights = randar_weights(config, generator)
    labels = random_labels(config, batch, generator)
    tokens = random_tokens(config, batch, generator)
    cells = torch.randperm(config["block_size"], generator=generator)
    known, unknown = cells[:given], cells[given:]
    order = random_orders(unknown, 1 if one_order else batch, generator).expand(batch, -1)
    whole = torch.cat([known.expand(batch, -1), order], dim=1)  # [B, N]
    canvas = Canvas(phase_table(config), whole, embed_tokens(weights, tokens.gather(1, whole)))
    sizes = group_sizes(len(unknown), steps)
    logits = decode(config, weights, labels, canvas, sizes, scales, given)
    recorded = order[0] if one_order else order
    io = {"labels": labels, "tokens": tokens, "order": recorded}
    if given:
        io |= {"known_positions": known, "group_sizes": torch.tensor(sizes)}
    for step, positions in enumerate(recorded.split(sizes, dim=-1)):
        io |= {f"step_logits.{step}": logits[step], f"step_positions.{step}": positions}
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
    generator = seeded(seed)
    config = small_config(side, **changes)
    weights = randar_weights(config, generator)
    labels = random_labels(config, batch, generator)
    tokens = random_tokens(config, batch, generator)
    order = torch.arange(config["block_size"]).expand(batch, -1)
    io, taught_labels = {"labels": labels, "tokens": tokens}, labels
    if config.get("position_order") != "raster":
        order = random_orders(order[0], batch, generator)
        io["order"] = order
    if dropped is not None:
        io["label_dropped"] = torch.tensor(dropped)
        taught_labels = torch.where(io["label_dropped"], null_labels(config, labels), labels)
    logits = taught_logits(config, weights, taught_labels, tokens, order)
    io |= {"logits": logits, "loss": cross_entropy(logits, tokens.gather(1, order))}
    return recording("randar", "loss", name, io, config, {}, weights)


def scheduled(name: str, cases: list[tuple[int, int]]) -> Golden:
    """Group sizes for pairs of places and steps."""
    io = {f"group_sizes.{index}": torch.tensor(group_sizes(*case)) for index, case in enumerate(cases)}
    recorded = [{"positions": places, "num_inference_steps": steps} for places, steps in cases]
    return recording("randar", "other", name, io, sampling={"cases": recorded})


def without_some(canvas: Canvas, kept: Tensor) -> Canvas:
    """The same with zeros for the vectors of the first places where kept [B, n] is false."""
    images = canvas.images.clone()
    images[:, : kept.shape[1]] *= kept.unsqueeze(-1)
    return replace(canvas, images=images)


def extrapolated_logits(
    config: Config,
    weights: Weights,
    labels: Tensor,
    canvas: Canvas,
    kept: Tensor,
    written: int,
    asked: int,
    class_scales: Scales,
    context_scales: Scales,
) -> Tensor:
    """Guided logits [B, asked, V] of one step on the large grid.

    kept, bool [B, N]: the low-resolution tokens that guidance leaves in the thinned context.
    """
    progress, null = written / canvas.order.shape[1], null_labels(config, labels)
    class_scale = at_progress(class_scales, progress)
    context_scale = at_progress(context_scales, progress)
    full = network_logits(config, weights, labels, canvas, written, asked)[:, -asked:]
    if class_scales[1] <= 1:
        return full
    without_class = network_logits(config, weights, null, canvas, written, asked)[:, -asked:]
    if context_scales[1] <= 1:
        return guided(full, without_class, class_scale)
    thinned = without_some(canvas, kept)
    least = network_logits(config, weights, null, thinned, written, asked)[:, -asked:]
    return least + class_scale * (full - without_class) + context_scale * (without_class - least)


def large_orders(side: int, batch: int, generator: torch.Generator) -> Tensor:
    """Orders [B, 4 N] of a grid of twice the side: the cells of even row and even column, then the others."""
    cells = torch.arange(4 * side * side)
    even = (cells // (2 * side) % 2 == 0) & (cells % (2 * side) % 2 == 0)
    first, rest = (random_orders(part, batch, generator) for part in (cells[even], cells[~even]))
    return torch.cat([first, rest], dim=1)


def random_kept(batch: int, places: int, ratio: float, generator: torch.Generator) -> Tensor:
    """bool [B, places]: all but a random share of every row, cut to a whole number."""
    kept = torch.ones(batch, places, dtype=torch.bool)
    for row in kept:
        row[torch.randperm(places, generator=generator)[: math.trunc(places * ratio)]] = False
    return kept


def extrapolated(
    name: str,
    side: int,
    steps: int,
    seed: int,
    class_scales: Scales = (1.0, 3.0),
    context_scales: Scales = (2.5, 2.5),
    ratio: float = 0.5,
    boundary: int = 2,
    batch: int = 2,
    **changes: Any,
) -> Golden:
    """A network of one side that continues its image on the grid of twice the side."""
    generator = seeded(seed)
    config = small_config(side, **{"n_head": 2, **changes})
    weights = randar_weights(config, generator)
    labels = random_labels(config, batch, generator)
    small, large = side * side, 4 * side * side
    tokens = torch.randint(0, config["vocab_size"], (batch, large), generator=generator)
    order = large_orders(side, batch, generator)
    row, column = order[:, :small] // (2 * side), order[:, :small] % (2 * side)
    kept = random_kept(batch, small, ratio, generator)
    table = extrapolated_table(config, boundary)
    canvas = Canvas(table, order, embed_tokens(weights, tokens.gather(1, order)))
    io = {
        "labels": labels,
        "tokens": tokens,
        "order": order,
        "low_tokens": tokens.unflatten(1, (2 * side, 2 * side))[:, ::2, ::2].flatten(1),
        "low_order": row // 2 * side + column // 2,
        "spatial_keep": kept,
        "rope": torch.stack(table, dim=-1),  # [1 + 4 N, D / 2, 2]
    }
    written = small
    for step, size in enumerate(group_sizes(large, steps, small, old_loop=True)):
        logits = extrapolated_logits(
            config, weights, labels, canvas, kept, written, size, class_scales, context_scales
        )
        positions = order[:, written : written + size]
        io |= {f"step_logits.{step}": logits, f"step_positions.{step}": positions}
        written += size
    io["result_tokens"] = tokens.scatter(1, order[:, written:], 0)
    sampling = {
        "cfg_scales": list(class_scales),
        "spatial_cfg_scales": list(context_scales),
        "spatial_masking_ratio": ratio,
        "num_inference_steps": steps,
        "ntk_boundary": boundary,
        "extrapolation_factor": 2.0,
    }
    return recording("randar", "other", name, io, config, sampling, weights)


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
    "grouped-heads-and-width-multiplier": partial(
        decoded, side=4, steps=5, seed=15, n_kv_head=2, ffn_dim_multiplier=1.3, multiple_of=10
    ),
    "norm-epsilon-rotary-base-and-dropouts": partial(
        decoded,
        side=4,
        steps=5,
        seed=16,
        norm_eps=1e-2,
        rope_base=100,
        token_dropout_p=0.1,
        resid_dropout_p=0.3,
    ),
    "inpainting": partial(decoded, side=5, steps=5, seed=17, given=7),
    "inpainting-of-one-cell": partial(decoded, side=3, steps=1, seed=19, given=8, scales=(2.0, 3.0)),
    "loss-all-labels-dropped": partial(taught, side=3, seed=20, dropped=[True, True]),
    "loss-no-label-dropped-odd-grid": partial(
        taught, side=5, seed=21, batch=1, dropped=[False], dim=36, n_head=3
    ),
    "loss-one-cell-no-null-class": partial(taught, side=1, seed=22, class_dropout_prob=0.0),
    "loss-raster": partial(taught, side=4, seed=23, position_order="raster"),
    "loss-grouped-heads-narrow-and-dropouts": partial(
        taught,
        side=3,
        seed=24,
        n_kv_head=2,
        ffn_dim_multiplier=0.7,
        multiple_of=1,
        attn_dropout_p=0.2,
        drop_path_rate=0.2,
    ),
    "sizes-of-few-places": partial(
        scheduled, cases=[(places, steps) for places in range(1, 26) for steps in (-1, *range(1, places + 3))]
    ),
    "sizes-where-the-last-bit-counts": partial(
        scheduled, cases=[(64, 39), (100, 75), (144, 87), (256, 126), (400, 51), (400, 88), (1024, 63)]
    ),
    "extrapolation-odd-grid": partial(extrapolated, side=3, steps=12, seed=26),
    "extrapolation-context-scales-rise": partial(
        extrapolated,
        side=3,
        steps=6,
        seed=27,
        class_scales=(3.0, 3.0),
        context_scales=(1.0, 2.5),
        ratio=0.3,
        boundary=1,
    ),
    "extrapolation-all-frequencies-interpolated": partial(
        extrapolated,
        side=2,
        steps=7,
        seed=28,
        class_scales=(3.0, 1.5),
        ratio=0.9,
        boundary=0,
        batch=3,
        rope_base=500,
    ),
    "extrapolation-none-interpolated-and-whole-context": partial(
        extrapolated, side=2, steps=40, seed=29, ratio=0.0, boundary=9, batch=1
    ),
    "extrapolation-no-context": partial(extrapolated, side=2, steps=4, seed=30, ratio=1.0),
    "extrapolation-by-class-alone": partial(
        extrapolated, side=2, steps=6, seed=31, context_scales=(2.5, 1.0)
    ),
    "extrapolation-context-scales-alone-are-unused": partial(
        extrapolated, side=2, steps=6, seed=32, class_scales=(3.0, 1.0)
    ),
    "extrapolation-one-per-step": partial(extrapolated, side=2, steps=-1, seed=33, batch=1),
    "extrapolation-of-one-cell": partial(extrapolated, side=1, steps=1, seed=34),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
