"""A naive PAR (arXiv 2412.15119) from the specification alone.

As with LlamaGen, a decode whose tokens are all known is one pass over its sequence; here under the mask that
lets the members of a group see each other.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.parts import (
    Config,
    Weights,
    block_causal_mask,
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
    recorded_steps,
    recording,
    seeded,
    side_of,
    small_config,
    taught_labels,
    weight,
)
from tests.replays.common import Golden

NOWHERE = -1


def par_config(side: int, regions: int, **changes: Any) -> Config:
    return small_config(side, ar_token_num=regions, spe_token_num=regions - 1, **changes)


def par_weights(config: Config, generator: torch.Generator) -> Weights:
    """LlamaGen's, and the learned tokens between the two phases."""
    learned = normal(generator, config["ar_token_num"] - 1, config["dim"])
    return {
        "spe_tok_embeddings.special_embeddings.weight": learned,
        **network_weights(config, generator),
    }


def order_of(side: int, regions: int) -> list[int]:
    """Raster place of each generated token: local places row by row, at each of them all regions."""
    regions_across = math.isqrt(regions)
    region_side = side // regions_across
    order = []
    for row in range(region_side):
        for column in range(region_side):
            for region_row in range(regions_across):
                for region_column in range(regions_across):
                    grid_row = region_row * region_side + row
                    order.append(grid_row * side + region_column * region_side + column)
    return order


def group_sizes(places: int, regions: int) -> list[int]:
    """One token a step up to the first group's last, then a group a step."""
    return [1] * regions + [regions] * (places // regions - 1)


def logits_of(config: Config, weights: Weights, labels: Tensor, tokens: Tensor) -> Tensor:
    """Logits [B, N, V] in generation order, of tokens [B, N] in generation order."""
    regions, places = config["ar_token_num"], config["block_size"]
    order = order_of(side_of(config), regions)
    embedded = embed_tokens(weights, tokens)  # [B, N, d]
    learned = weight(weights, "spe_tok_embeddings.special_embeddings").expand(len(tokens), -1, -1)
    x = [embed_class(weights, labels), embedded[:, :regions], learned, embedded[:, regions:]]
    positions = [NOWHERE, *order[:regions], *[NOWHERE] * (regions - 1), *order[regions:]]
    # Nothing that is kept sees the inputs behind the first N.
    phases = grid_phases(config, torch.tensor(positions[:places]))
    mask = block_causal_mask(group_sizes(places, regions))
    return forward(config, weights, torch.cat(x, dim=1)[:, :places], phases, mask)


def is_guided(step: int, regions: int, interval: float) -> bool:
    """Tokens are counted anew, guided at first, in the sequential and in the parallel phase."""
    if step == 0 or interval < 0:
        return True
    count = step - 1 if step < regions else (step - regions) * regions
    return count <= interval


def decode(
    config: Config, sampling: dict[str, Any], weights: Weights, labels: Tensor, tokens: Tensor
) -> list[Tensor]:
    """Guided logits [B, n, V] of every step, of tokens [B, N] in generation order."""
    scale, interval = sampling["cfg_scale"], sampling.get("cfg_interval", -1)
    sizes = group_sizes(config["block_size"], config["ar_token_num"])
    with_class = logits_of(config, weights, labels, tokens).split(sizes, dim=1)
    if scale <= 1:
        return list(with_class)
    without = logits_of(config, weights, null_labels(config, labels), tokens).split(sizes, dim=1)
    return [
        guided(*pair, scale) if is_guided(step, config["ar_token_num"], interval) else pair[0]
        for step, pair in enumerate(zip(with_class, without, strict=True))
    ]


def decoded(name: str, config: Config, sampling: dict[str, Any], batch: int = 2) -> Golden:
    generator = seeded(0)
    weights, io = par_weights(config, generator), random_inputs(config, batch, generator)
    order = torch.tensor(order_of(side_of(config), config["ar_token_num"]))
    logits = decode(config, sampling, weights, io["labels"], io["tokens"][:, order])
    sizes = group_sizes(config["block_size"], config["ar_token_num"])
    io |= {"order": order, **recorded_steps(logits, order.split(sizes))}
    return recording("par", "decode", name, io, config, sampling, weights)


def taught(
    name: str,
    config: Config,
    batch: int = 2,
    dropped: list[bool] | None = None,
    unsaid: tuple[str, ...] = (),
) -> Golden:
    generator = seeded(0)
    weights = par_weights(config, generator)
    io = random_inputs(config, batch, generator) | label_drops(dropped)
    order = torch.tensor(order_of(side_of(config), config["ar_token_num"]))
    tokens = io["tokens"][:, order]
    logits = logits_of(config, weights, taught_labels(io, config["num_classes"]), tokens)
    io |= {"order": order.expand(batch, -1), "logits": logits, "loss": cross_entropy(logits, tokens)}
    return recording("par", "loss", name, io, config, {}, weights, unsaid)


def ordered(name: str, side: int, regions: int) -> Golden:
    config = {"block_size": side * side, "ar_token_num": regions, "spe_token_num": regions - 1}
    io = {
        "order": torch.tensor([order_of(side, regions)]),
        "group_sizes": torch.tensor(group_sizes(side * side, regions)),
    }
    return recording("par", "order", name, io, config)


MAKERS: dict[str, Callable[[str], Golden]] = {
    "4-regions-of-one-token": partial(decoded, config=par_config(2, 4), sampling={"cfg_scale": 2.0}, batch=3),
    "4-odd-regions-interval-below-a-group": partial(
        decoded, config=par_config(6, 4, n_layer=1), sampling={"cfg_scale": 3.5, "cfg_interval": 3}, batch=1
    ),
    "4-odd-regions-interval-of-a-group-grouped-heads": partial(
        decoded,
        config=par_config(6, 4, dim=48, n_head=6, n_kv_head=3),
        sampling={"cfg_scale": 3.5, "cfg_interval": 4},
        batch=1,
    ),
    "4-regions-no-null-class": partial(
        decoded,
        config=par_config(4, 4, class_dropout_prob=0.0),
        sampling={"cfg_scale": 0.5, "cfg_interval": 1},
    ),
    "9-regions-of-one-token-interval-in-the-first-phase": partial(
        decoded, config=par_config(3, 9), sampling={"cfg_scale": 2.0, "cfg_interval": 3}
    ),
    "9-regions-guided": partial(decoded, config=par_config(6, 9), sampling={"cfg_scale": 2.0}),
    "9-regions-interval-between-whole-numbers": partial(
        decoded, config=par_config(6, 9), sampling={"cfg_scale": 2.0, "cfg_interval": 8.5}
    ),
    "9-regions-of-3x3-interval-of-two-groups": partial(
        decoded, config=par_config(9, 9, n_layer=1), sampling={"cfg_scale": 1.5, "cfg_interval": 18}
    ),
    "16-regions-unguided-3-heads-one-image": partial(
        decoded, config=par_config(8, 16, dim=60, n_head=3), sampling={"cfg_scale": 1.0}, batch=1
    ),
    "16-regions-interval-0": partial(
        decoded, config=par_config(8, 16, n_layer=1), sampling={"cfg_scale": 3.0, "cfg_interval": 0}, batch=3
    ),
    "25-regions-interval-past-the-first-phase": partial(
        decoded, config=par_config(10, 25, n_layer=1), sampling={"cfg_scale": 1.5, "cfg_interval": 30}
    ),
    "loss-4-regions-of-one-token": partial(taught, config=par_config(2, 4), batch=3),
    "loss-4-odd-regions-grouped-heads-and-dropouts": partial(
        taught,
        config=par_config(6, 4, n_kv_head=2, token_dropout_p=0.1, resid_dropout_p=0.1, drop_path_rate=0.1),
        batch=3,
        dropped=[False, True, False],
    ),
    "loss-9-regions-all-labels-dropped": partial(
        taught, config=par_config(6, 9), dropped=[True, True], unsaid=("spe_token_num",)
    ),
    "loss-16-regions-of-one-token": partial(
        taught, config=par_config(4, 16, dim=60, n_head=3), unsaid=("ar_token_num",)
    ),
    "order-4-regions-of-one-token": partial(ordered, side=2, regions=4),
    "order-9-regions": partial(ordered, side=6, regions=9),
    "order-16-regions-of-one-token": partial(ordered, side=4, regions=16),
    "order-25-regions": partial(ordered, side=15, regions=25),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
