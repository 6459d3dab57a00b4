"""A naive LlamaGen (arXiv 2406.06525) from the specification alone.

A decode whose tokens are all known is one causal pass over them, as its training is; only guidance makes a
difference between the steps. Filters go through one row of logits at a time.
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
    cross_entropy,
    guided,
    label_drops,
    network_weights,
    normal,
    null_labels,
    random_inputs,
    raster_logits,
    recorded_steps,
    recording,
    seeded,
    small_config,
    taught_labels,
)
from tests.replays.common import Golden


def is_guided(step: int, interval: float) -> bool:
    """Step 0 is the class alone; from then on steps are counted from 0 again."""
    return step == 0 or interval < 0 or step - 1 <= interval


def decode(
    config: Config, sampling: dict[str, Any], weights: Weights, labels: Tensor, tokens: Tensor
) -> list[Tensor]:
    """Guided logits [B, 1, V] of every step."""
    scale, interval = sampling.get("cfg_scale", 1.0), sampling.get("cfg_interval", -1)
    with_class = raster_logits(config, weights, labels, tokens[:, :-1])
    if scale <= 1:
        return list(with_class.split(1, dim=1))
    without = raster_logits(config, weights, null_labels(config, labels), tokens[:, :-1])
    both = guided(with_class, without, scale)
    return [
        (both if is_guided(step, interval) else with_class)[:, step : step + 1]
        for step in range(config["block_size"])
    ]


def keep_top_k(row: Tensor, top_k: int) -> Tensor:
    """Without the values of a row [V] that are below the k-th largest."""
    if top_k <= 0:
        return row
    smallest = sorted(row.tolist())[-min(top_k, len(row))]
    return row.masked_fill(row < smallest, -math.inf)


def keep_top_p(row: Tensor, top_p: float) -> Tensor:
    """Without the values of a row [V] behind the one with which the running probability exceeds top_p."""
    if top_p >= 1:
        return row
    kept, running, chance = row.clone(), 0.0, row.softmax(dim=-1)
    for token in row.argsort(descending=True, stable=True).tolist():
        if running > top_p:
            kept[token] = -math.inf
        running += float(chance[token])
    return kept


def filtered(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """What is left of logits [B, V]."""
    rows = [keep_top_p(keep_top_k(row, top_k), top_p) for row in logits / max(temperature, 1e-5)]
    return torch.stack(rows)


def decoded(
    name: str, config: Config, sampling: dict[str, Any], batch: int = 2, unsaid: tuple[str, ...] = ()
) -> Golden:
    generator = seeded(0)
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    order = torch.arange(config["block_size"])
    logits = decode(config, sampling, weights, io["labels"], io["tokens"])
    io |= {"order": order, **recorded_steps(logits, order.split(1))}
    return recording("llamagen", "decode", name, io, config, sampling, weights, unsaid)


def taught(name: str, config: Config, batch: int = 2, dropped: list[bool] | None = None) -> Golden:
    generator = seeded(0)
    weights = network_weights(config, generator)
    io = random_inputs(config, batch, generator) | label_drops(dropped)
    labels = taught_labels(io, config["num_classes"])
    logits = raster_logits(config, weights, labels, io["tokens"][:, :-1])
    io |= {"logits": logits, "loss": cross_entropy(logits, io["tokens"])}
    return recording("llamagen", "loss", name, io, config, {}, weights)


def filtering(name: str, logits: Tensor, sampling: dict[str, Any]) -> Golden:
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **sampling}
    io = {"logits": logits, "filtered": filtered(logits, **settings)}
    return recording("llamagen", "filter", name, io, {}, sampling)


ALL_DROPOUTS: Config = {
    "token_dropout_p": 0.1,
    "attn_dropout_p": 0.2,
    "resid_dropout_p": 0.3,
    "ffn_dropout_p": 0.3,
    "drop_path_rate": 0.2,
}
WITH_DEFAULTS = (
    "n_head n_kv_head multiple_of ffn_dim_multiplier rope_base norm_eps class_dropout_prob cls_token_num "
    "model_type token_dropout_p attn_dropout_p resid_dropout_p ffn_dropout_p drop_path_rate"
)
SMOOTH_LOGITS = normal(seeded(0), 3, 40, scale=3.0)
TIED_LOGITS = SMOOTH_LOGITS.round()
HALVED_LOGITS = torch.tensor([[-200.0, 1.0, -200.0, -200.0, 1.0, -200.0]])
"""Two codes have a probability of exactly 1/2."""

MAKERS: dict[str, Callable[[str], Golden]] = {
    "guided-one-layer-one-head-one-image": partial(
        decoded, config=small_config(4, dim=8, n_layer=1, n_head=1), sampling={"cfg_scale": 1.5}, batch=1
    ),
    "guided-odd-grid-3-heads-one-class": partial(
        decoded, config=small_config(7, dim=60, n_head=3, num_classes=1), sampling={"cfg_scale": 4.0}, batch=4
    ),
    "guided-one-token": partial(
        decoded, config=small_config(1), sampling={"cfg_scale": 3.0, "cfg_interval": 0}, batch=3
    ),
    "guided-one-code": partial(
        decoded, config=small_config(2, vocab_size=1), sampling={"cfg_scale": 1.5}, batch=1
    ),
    "interval-0-guides-two": partial(
        decoded, config=small_config(2), sampling={"cfg_scale": 3.0, "cfg_interval": 0}, batch=3
    ),
    "interval-between-whole-numbers": partial(
        decoded, config=small_config(3), sampling={"cfg_scale": 3.0, "cfg_interval": 2.5}
    ),
    "interval-just-below-0-guides-all": partial(
        decoded, config=small_config(3), sampling={"cfg_scale": 2.0, "cfg_interval": -0.5}
    ),
    "interval-spares-the-last": partial(
        decoded, config=small_config(3), sampling={"cfg_scale": 2.25, "cfg_interval": 6}
    ),
    "interval-without-guidance": partial(
        decoded, config=small_config(3), sampling={"cfg_scale": 1.0, "cfg_interval": 3}
    ),
    "scale-0-is-no-guidance": partial(decoded, config=small_config(3), sampling={"cfg_scale": 0}),
    "scale-half-is-no-guidance": partial(decoded, config=small_config(3), sampling={"cfg_scale": 0.5}),
    "scale-just-above-1": partial(decoded, config=small_config(3), sampling={"cfg_scale": 1.1}),
    "no-null-class": partial(
        decoded, config=small_config(3, class_dropout_prob=0.0), sampling={"cfg_scale": 1.0}
    ),
    "guided-grouped-heads-and-filters": partial(
        decoded,
        config=small_config(4, dim=48, n_head=6, n_kv_head=2),
        sampling={"cfg_scale": 2.0, "cfg_interval": 1, "temperature": 0.0, "top_k": 10, "top_p": 0.5},
    ),
    "one-key-head-and-width-multiplier": partial(
        decoded,
        config=small_config(4, dim=48, n_kv_head=1, ffn_dim_multiplier=1.3, multiple_of=48),
        sampling={},
    ),
    "norm-epsilon-rotary-base-and-dropouts": partial(
        decoded,
        config=small_config(4, norm_eps=1e-2, rope_base=100.0, **ALL_DROPOUTS),
        sampling={"cfg_scale": 2.0},
    ),
    "defaults-unsaid": partial(
        decoded,
        config=small_config(3, dim=128, n_layer=1, n_head=32, multiple_of=256),
        sampling={"cfg_scale": 1.75},
        unsaid=tuple(WITH_DEFAULTS.split()),
    ),
    "loss-all-labels-dropped": partial(taught, config=small_config(4), batch=3, dropped=[True, True, True]),
    "loss-no-label-dropped-odd-grid": partial(
        taught, config=small_config(5, dim=36, n_head=3), batch=1, dropped=[False]
    ),
    "loss-one-token": partial(taught, config=small_config(1)),
    "loss-grouped-heads-narrow-and-dropouts": partial(
        taught, config=small_config(3, n_kv_head=2, ffn_dim_multiplier=0.81, multiple_of=1, **ALL_DROPOUTS)
    ),
    "filter-temperature-0": partial(
        filtering, logits=SMOOTH_LOGITS, sampling={"temperature": 0.0, "top_p": 0.9}
    ),
    "filter-hot-top-k-1": partial(filtering, logits=SMOOTH_LOGITS, sampling={"temperature": 3.0, "top_k": 1}),
    "filter-top-k-past-the-end-and-top-p": partial(
        filtering, logits=SMOOTH_LOGITS, sampling={"top_k": 99, "top_p": 0.5}
    ),
    "filter-top-k-below-0": partial(filtering, logits=SMOOTH_LOGITS, sampling={"top_k": -1, "top_p": 0.5}),
    "filter-ties-at-the-threshold": partial(filtering, logits=TIED_LOGITS, sampling={"top_k": 5}),
    "filter-top-p-0-keeps-one": partial(filtering, logits=SMOOTH_LOGITS, sampling={"top_p": 0.0}),
    "filter-top-p-above-1": partial(filtering, logits=TIED_LOGITS, sampling={"top_k": 3, "top_p": 1.5}),
    "filter-top-p-met-exactly": partial(filtering, logits=HALVED_LOGITS, sampling={"top_p": 0.5}),
    "filter-one-code": partial(filtering, logits=SMOOTH_LOGITS[:, :1], sampling={"top_k": 1, "top_p": 0.1}),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
