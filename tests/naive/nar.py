"""A naive NAR (arXiv 2503.10696) from the specification alone.

Training mixes the two heads place by place. Decoding goes diagonal by diagonal: every step is one uncached
pass over the class and the diagonals before it, and its outputs come from the last of these alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.parts import (
    GROUPED_NARROW,
    GROUPED_WIDE,
    OTHER_CONSTANTS,
    Config,
    Weights,
    block,
    block_weights,
    cross_entropy,
    embed_class,
    embed_tokens,
    grid_phases,
    guided,
    head,
    label_drops,
    network_weights,
    norm_scale,
    normal,
    null_labels,
    random_inputs,
    recorded_steps,
    recording,
    seeded,
    side_of,
    small_config,
    taught_labels,
)
from tests.replays.common import Golden


def nar_weights(config: Config, generator: torch.Generator) -> Weights:
    """LlamaGen's, one block more, and the head that predicts the token below."""
    width, codes = config["dim"], config["vocab_size"]
    return (
        network_weights(config, generator)
        | block_weights(config, config["n_layer"], generator)
        | {
            "medusa_norm.weight": norm_scale(generator, width),
            "medusa_output.weight": normal(generator, codes, width, scale=1.2 * width**-0.5),
        }
    )


def diagonals(side: int) -> list[list[int]]:
    """Cells of every anti-diagonal, each by increasing row."""
    return [
        [row * side + column for row in range(side) for column in range(side) if row + column == distance]
        for distance in range(2 * side - 1)
    ]


def diagonal_mask(config: Config, places: Tensor) -> Tensor:
    """bool [n, n]: which inputs at the places [n] each input sees; place -1 is the class.

    All see the class, and tokens see every token whose diagonal is not behind their own.
    """
    side = side_of(config)
    distance = places.div(side, rounding_mode="floor") + places % side
    not_behind = distance[None, :] <= distance[:, None]
    is_class = places < 0
    return is_class[None, :] | (not_behind & ~is_class[:, None])


def both_heads(
    config: Config, weights: Weights, labels: Tensor, tokens: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Right and below logits [B, 1 + n, V] at the class and at the tokens [B, n] of the places [n]."""
    x = torch.cat([embed_class(weights, labels), embed_tokens(weights, tokens)], dim=1)
    places = torch.cat([torch.tensor([-1]), places])
    phases, mask = grid_phases(config, places), diagonal_mask(config, places)
    for index in range(config["n_layer"]):
        x = block(config, weights, index, x, phases, mask)
    right = head(config, weights, x)
    x = block(config, weights, config["n_layer"], x, phases, mask)
    return right, head(config, weights, x, "medusa_norm", "medusa_output")


def taught_logits(config: Config, weights: Weights, labels: Tensor, tokens: Tensor) -> Tensor:
    """Logits [B, N, V] in raster order, of all N tokens fed at once."""
    side = side_of(config)
    right, below = both_heads(config, weights, labels, tokens, torch.arange(side * side))
    mixed = []
    for row in range(side):
        for column in range(side):
            cell = row * side + column  # whose own input is behind that of the class
            from_left, from_above = right[:, cell], below[:, max(cell + 1 - side, 0)]
            if row == 0 and column > 0:
                mixed.append(from_left)
            elif column == 0 and row > 0:
                mixed.append(from_above)
            else:
                mixed.append((from_left + from_above) / 2)
    return torch.stack(mixed, dim=1)


def step_logits(config: Config, weights: Weights, labels: Tensor, tokens: Tensor, step: int) -> Tensor:
    """Logits [B, n, V] of diagonal ``step`` from the diagonals before it."""
    side = side_of(config)
    before = diagonals(side)[:step]
    fed = torch.tensor([cell for diagonal in before for cell in diagonal], dtype=torch.int64)
    right, below = both_heads(config, weights, labels, tokens[:, fed], fed)
    if step == 0:
        return (right + below) / 2
    inputs = len(before[-1])
    right, below = right[:, -inputs:], below[:, -inputs:]
    middle = (below[:, :-1] + right[:, 1:]) / 2
    growing = step < side
    return torch.cat([right[:, :1], middle, below[:, -1:]], dim=1) if growing else middle


def is_guided(step: int, generated: int, interval: float) -> bool:
    """generated: how many tokens there are before the step."""
    return step == 0 or interval < 0 or generated <= interval


def decode(
    config: Config, sampling: dict[str, Any], weights: Weights, labels: Tensor, tokens: Tensor
) -> list[Tensor]:
    """Guided logits [B, n, V] of every diagonal."""
    scale, interval = sampling.get("cfg_scale", 1.0), sampling.get("cfg_interval", -1)
    steps, generated = [], 0
    for step, cells in enumerate(diagonals(side_of(config))):
        logits = step_logits(config, weights, labels, tokens, step)
        if scale > 1 and is_guided(step, generated, interval):
            without = step_logits(config, weights, null_labels(config, labels), tokens, step)
            logits = guided(logits, without, scale)
        steps.append(logits)
        generated += len(cells)
    return steps


def decoded(
    name: str,
    side: int,
    sampling: dict[str, Any],
    seed: int,
    batch: int = 2,
    order_of_rows: bool = False,
    said: dict[str, Any] | None = None,
    **changes: Any,
) -> Golden:
    """order_of_rows: recorded with an axis for them. said: hyper-parameters that only the recording holds."""
    config, generator = small_config(side, **changes), seeded(seed)
    weights, io = nar_weights(config, generator), random_inputs(config, batch, generator)
    rows = (batch, -1) if order_of_rows else (-1,)
    cells = [torch.tensor(diagonal).expand(*rows) for diagonal in diagonals(side)]
    logits = decode(config, sampling, weights, io["labels"], io["tokens"])
    io |= {"order": torch.cat(cells, dim=-1), **recorded_steps(logits, cells)}
    return recording("nar", "decode", name, io, config | (said or {}), sampling, weights)


def taught(
    name: str, side: int, seed: int, batch: int = 2, dropped: list[bool] | None = None, **changes: Any
) -> Golden:
    config, generator = small_config(side, **changes), seeded(seed)
    weights = nar_weights(config, generator)
    io = random_inputs(config, batch, generator) | label_drops(dropped)
    logits = taught_logits(config, weights, taught_labels(io, config["num_classes"]), io["tokens"])
    io |= {"logits": logits, "loss": cross_entropy(logits, io["tokens"])}
    return recording("nar", "loss", name, io, config, {}, weights)


def ordered(name: str, side: int) -> Golden:
    """The order [1, N] and its group sizes."""
    cells = diagonals(side)
    order = torch.tensor([[cell for diagonal in cells for cell in diagonal]])
    sizes = torch.tensor([len(diagonal) for diagonal in cells])
    return recording("nar", "order", name, {"order": order, "group_sizes": sizes}, {"block_size": side**2})


MAKERS: dict[str, Callable[[str], Golden]] = {
    "one-layer-one-head-one-image": partial(
        decoded, side=3, batch=1, sampling={"cfg_scale": 3.0}, seed=1, n_layer=1, n_head=1, dim=8
    ),
    "odd-grid-3-heads-one-class": partial(
        decoded, side=7, sampling={"cfg_scale": 2.0}, seed=2, dim=36, n_head=3, num_classes=1
    ),
    "one-token": partial(decoded, side=1, batch=3, sampling={"cfg_scale": 2.0, "cfg_interval": 0}, seed=3),
    "two-by-two": partial(decoded, side=2, batch=3, sampling={"cfg_scale": 2.0, "cfg_interval": 1}, seed=4),
    "interval-0-guides-the-first": partial(
        decoded, side=3, sampling={"cfg_scale": 3.0, "cfg_interval": 0}, seed=5
    ),
    "interval-between-diagonals": partial(
        decoded, side=4, sampling={"cfg_scale": 3.0, "cfg_interval": 2}, seed=6
    ),
    "interval-at-a-diagonal": partial(
        decoded, side=4, sampling={"cfg_scale": 3.0, "cfg_interval": 3}, seed=7
    ),
    "interval-between-whole-numbers": partial(
        decoded, side=4, sampling={"cfg_scale": 3.0, "cfg_interval": 6.5}, seed=8
    ),
    "interval-spares-the-last": partial(
        decoded, side=4, sampling={"cfg_scale": 3.0, "cfg_interval": 14.0}, seed=9
    ),
    "interval-past-the-end": partial(
        decoded, side=3, sampling={"cfg_scale": 3.0, "cfg_interval": 100}, seed=10
    ),
    "interval-just-below-0-guides-all": partial(
        decoded, side=3, sampling={"cfg_scale": 2.0, "cfg_interval": -0.5}, seed=11
    ),
    "interval-without-guidance": partial(
        decoded, side=3, sampling={"cfg_scale": 1.0, "cfg_interval": 3}, seed=12
    ),
    "scale-half-is-no-guidance": partial(decoded, side=3, sampling={"cfg_scale": 0.5}, seed=13),
    "scale-just-above-1": partial(decoded, side=3, sampling={"cfg_scale": 1.1}, seed=14),
    "no-null-class-nor-settings": partial(decoded, side=3, sampling={}, seed=15, class_dropout_prob=0.0),
    "order-of-every-row": partial(decoded, side=3, sampling={"cfg_scale": 2.0}, seed=16, order_of_rows=True),
    "grouped-heads-and-width-multiplier": partial(
        decoded, side=4, sampling={"cfg_scale": 2.0}, seed=17, **GROUPED_WIDE
    ),
    "norm-epsilon-rotary-base-and-dropouts": partial(
        decoded,
        side=4,
        sampling={"cfg_scale": 2.0, "temperature": 0.5, "top_k": 3, "top_p": 0.5},
        seed=18,
        **OTHER_CONSTANTS,
    ),
    "extra-block-said": partial(
        decoded, side=3, sampling={"cfg_scale": 2.0}, seed=19, said={"medusa_attention_num": 1}
    ),
    "loss-all-labels-dropped": partial(taught, side=3, seed=20, dropped=[True, True]),
    "loss-some-labels-dropped": partial(taught, side=4, batch=3, seed=21, dropped=[True, False, True]),
    "loss-no-label-dropped-odd-grid": partial(
        taught, side=7, batch=1, seed=22, dropped=[False], dim=36, n_head=3
    ),
    "loss-one-token-no-null-class": partial(taught, side=1, seed=23, class_dropout_prob=0.0),
    "loss-grouped-heads-narrow-and-dropouts": partial(taught, side=3, seed=24, **GROUPED_NARROW),
    "loss-norm-epsilon-and-rotary-base": partial(
        taught, side=2, seed=25, norm_eps=1e-2, rope_base=100, n_layer=1
    ),
    "order-of-one-cell": partial(ordered, side=1),
    "order-4x4": partial(ordered, side=4),
    "order-7x7": partial(ordered, side=7),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
