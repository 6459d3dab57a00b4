"""A naive RandAR (Pang et al., arXiv 2412.01827) beyond its trained grid, from the specification alone.

The network continues an image of its own side on the grid of twice the side.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.parts import (
    Config,
    Phases,
    Weights,
    embed_tokens,
    guided,
    null_labels,
    random_labels,
    random_orders,
    recorded_steps,
    recording,
    seeded,
    side_of,
    small_config,
)
from tests.naive.randar import Canvas, Scales, at_progress, group_sizes, randar_weights, step_logits
from tests.replays.common import Golden


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
    full = step_logits(config, weights, labels, canvas, written, asked)
    if class_scales[1] <= 1:
        return full
    without_class = step_logits(config, weights, null, canvas, written, asked)
    if context_scales[1] <= 1:
        return guided(full, without_class, class_scale)
    least = step_logits(config, weights, null, without_some(canvas, kept), written, asked)
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
    config, generator = small_config(side, **{"n_head": 2, **changes}), seeded(seed)
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
    logits, positions, written = [], [], small
    for size in group_sizes(large, steps, small, old_loop=True):
        scales = class_scales, context_scales
        logits.append(extrapolated_logits(config, weights, labels, canvas, kept, written, size, *scales))
        positions.append(order[:, written : written + size])
        written += size
    io |= {"result_tokens": tokens.scatter(1, order[:, written:], 0), **recorded_steps(logits, positions)}
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
