"""A naive ARPG (Li et al., arXiv 2503.10568) from the specification alone.

Each step of a decode is a forward of its own: pass 1 goes once more over all blocks before, under a mask, and
pass 2 over the step's queries.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.parts import (
    Config,
    Phases,
    Weights,
    block_causal_mask,
    causal_mask,
    cross_entropy,
    dot_product_attention,
    feed_forward,
    feed_forward_width,
    grid_phases,
    guided,
    label_drops,
    norm_scale,
    normal,
    null_labels,
    random_inputs,
    random_orders,
    recorded_steps,
    recording,
    rms_norm,
    rotate,
    seeded,
    taught_labels,
    weight,
)
from tests.replays.common import Golden


def small_config(side: int, **changes: Any) -> Config:
    return {
        "dim": 32,
        "n_layer": 4,
        "n_head": 2,
        "multiple_of": 32,
        "ffn_dim_multiplier": None,
        "vocab_size": 40,
        "num_classes": 5,
        "block_size": side * side,
        "cls_token_num": 1,
        "rope_base": 10000,
        "norm_eps": 1e-5,
        **changes,
    }


def network_weights(config: Config, generator: torch.Generator) -> Weights:
    width, codes, hidden = config["dim"], config["vocab_size"], feed_forward_width(config)
    inner, outer = width**-0.5, hidden**-0.5
    square = partial(normal, generator, width, width, scale=inner)
    weights = {
        "embeddings": normal(generator, codes + config["num_classes"] + 3, width),
        "layers.norm": norm_scale(generator, width),
        "layers.to_k": square(),
        "layers.to_v": square(),
        "norm": norm_scale(generator, width),
        "head": normal(generator, codes, width, scale=inner),
    }
    for half, projections in (
        ("self_dec", ("to_q", "to_k", "to_v", "proj")),
        ("cross_dec", ("to_q", "proj")),
    ):
        for index in range(config["n_layer"] // 2):
            name = f"layers.{half}.{index}"
            weights |= {f"{name}.attn.{projection}": square() for projection in projections}
            weights |= {
                f"{name}.ffn.w1": normal(generator, hidden, width, scale=inner),
                f"{name}.ffn.w3": normal(generator, hidden, width, scale=inner),
                f"{name}.ffn.w2": normal(generator, width, hidden, scale=outer),
                f"{name}.attn_norm": norm_scale(generator, width),
                f"{name}.ffn_norm": norm_scale(generator, width),
            }
    return {f"{name}.weight": value for name, value in weights.items()}


def class_rows(config: Config, labels: Tensor) -> Tensor:
    """Rows [B] of the embedding table: a code each, the mask, a class each, then that of dropped classes."""
    return config["vocab_size"] + 1 + labels


def norm(config: Config, weights: Weights, name: str, x: Tensor) -> Tensor:
    return rms_norm(x, weight(weights, name), config["norm_eps"])


def in_heads(config: Config, weights: Weights, name: str, x: Tensor) -> Tensor:
    """x [B, n, d] projected, [B, n, H, D]."""
    return (x @ weight(weights, name).T).unflatten(-1, (config["n_head"], -1))


def read_content(
    config: Config, weights: Weights, x: Tensor, phases: Phases, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Pass 1 over the content x [B, m, d]: the key and the value of each input, [B, m, H, D]."""
    for index in range(config["n_layer"] // 2):
        name = f"layers.self_dec.{index}"
        normed = norm(config, weights, f"{name}.attn_norm", x)
        q, k, v = (in_heads(config, weights, f"{name}.attn.to_{part}", normed) for part in "qkv")
        attended = dot_product_attention(rotate(q, phases), rotate(k, phases), v, mask)
        x = x + attended @ weight(weights, f"{name}.attn.proj").T
        x = x + feed_forward(weights, f"{name}.ffn", norm(config, weights, f"{name}.ffn_norm", x))
    x = norm(config, weights, "layers.norm", x)
    k, v = (in_heads(config, weights, f"layers.to_{part}", x) for part in "kv")
    return rotate(k, phases), v


def answer_queries(
    config: Config, weights: Weights, k: Tensor, v: Tensor, targets: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Pass 2: logits [B, n, V] of the targets, raster places [B, n].

    mask, bool [n, m]: which keys each target sees, all where there is none.
    """
    phases = grid_phases(config, targets)
    x = weight(weights, "embeddings")[config["vocab_size"]].expand(*targets.shape, -1)  # [B, n, d]
    for index in range(config["n_layer"] // 2):
        name = f"layers.cross_dec.{index}"
        q = in_heads(config, weights, f"{name}.attn.to_q", norm(config, weights, f"{name}.attn_norm", x))
        attended = dot_product_attention(rotate(q, phases), k, v, mask)
        x = x + attended @ weight(weights, f"{name}.attn.proj").T
        x = x + feed_forward(weights, f"{name}.ffn", norm(config, weights, f"{name}.ffn_norm", x))
    return norm(config, weights, "norm", x) @ weight(weights, "head").T


def content_inputs(
    config: Config, weights: Weights, classes: Tensor, tokens: Tensor, order: Tensor
) -> tuple[Tensor, Phases]:
    """[B, 1 + n, d] and phases: rows of the table [B], then the tokens, of all [B, N], at raster places
    [B, n]."""
    rows = torch.cat([classes.unsqueeze(1), tokens.gather(1, order)], dim=1)
    nowhere = torch.full((len(order), 1), -1)
    return weight(weights, "embeddings")[rows], grid_phases(config, torch.cat([nowhere, order], dim=1))


def training_logits(
    config: Config, weights: Weights, classes: Tensor, tokens: Tensor, order: Tensor
) -> Tensor:
    """Logits [B, N, V] by the order [B, N]."""
    x, phases = content_inputs(config, weights, classes, tokens, order[:, :-1])
    mask = causal_mask(order.shape[1])
    k, v = read_content(config, weights, x, phases, mask)
    return answer_queries(config, weights, k, v, order, mask)


def step_logits(
    config: Config,
    weights: Weights,
    classes: Tensor,
    tokens: Tensor,
    order: Tensor,
    blocks: Sequence[int],
    targets: Tensor,
) -> Tensor:
    """Logits [B, n, V] of the targets [B, n] after blocks, class first, that the order [B, m] follows."""
    x, phases = content_inputs(config, weights, classes, tokens, order)
    k, v = read_content(config, weights, x, phases, block_causal_mask(blocks))
    return answer_queries(config, weights, k, v, targets)


def group_sizes(places: int, steps: int, schedule: str) -> list[int]:
    sizes, generated = list[int](), 0
    for step in range(steps):
        if schedule == "arccos":
            ratio = math.acos((step + 1) / steps) / (math.pi / 2)
        else:
            ratio = math.cos(((math.pi / 2) * (step + 1)) / steps)
        left = max(1, min(places - generated - 1, int(places * ratio)))
        size = places - generated - (left if step < steps - 1 else 0)
        sizes.append(size)
        generated += size
    return sizes


def decode(
    config: Config,
    sampling: dict[str, Any],
    weights: Weights,
    labels: Tensor,
    tokens: Tensor,
    order: Tensor,
    known: int,
) -> list[Tensor]:
    """Guided logits [B, n, V] of every step, by the order [B, N], whose first places are known."""
    scale, schedule = sampling.get("guidance_scale", 4.0), sampling.get("sample_schedule", "arccos")
    unknown = order.shape[1] - known
    sizes = group_sizes(unknown, min(sampling.get("num_iter", 64), unknown), schedule)
    before = [1 + known] if sampling.get("prefill", "split") == "joint" else [1, known]
    branches = class_rows(config, labels), class_rows(config, null_labels(config, labels))
    logits = []
    for step, size in enumerate(sizes):
        start, blocks = known + sum(sizes[:step]), [*before, *sizes[:step]]
        targets = order[:, start : start + size]
        with_class, without = (
            step_logits(config, weights, classes, tokens, order[:, :start], blocks, targets)
            for classes in branches
        )
        of_step = scale
        if sampling.get("cfg_schedule", "linear") == "linear":
            of_step = 1 + (scale - 1) * sum(sizes[: step + 1]) / unknown
        logits.append(guided(with_class, without, of_step))
    return logits


def decoded(
    name: str,
    config: Config,
    sampling: dict[str, Any],
    batch: int = 2,
    known: int = 0,
    own_orders: bool = False,
    unsaid: tuple[str, ...] = (),
    kind: str = "decode",
) -> Golden:
    """known: how many places of the order come first; own_orders: one for each row."""
    generator = seeded(0)
    weights, io = network_weights(config, generator), random_inputs(config, batch, generator)
    order = random_orders(torch.arange(config["block_size"]), batch if own_orders else 1, generator)
    order = order.expand(batch, -1)
    recorded = order[:, known:] if own_orders else order[0, known:]
    if known:
        io["known_positions"] = order[0, :known]
    steps = decode(config, sampling, weights, io["labels"], io["tokens"], order, known)
    positions = recorded.split([logits.shape[1] for logits in steps], dim=-1)
    io |= {"order": recorded, **recorded_steps(steps, positions)}
    return recording("arpg", kind, name, io, config, sampling, weights, unsaid)


def taught(name: str, config: Config, batch: int = 2, dropped: list[bool] | None = None) -> Golden:
    generator = seeded(0)
    weights = network_weights(config, generator)
    io = random_inputs(config, batch, generator) | label_drops(dropped)
    io["order"] = random_orders(torch.arange(config["block_size"]), batch, generator)
    classes = class_rows(config, taught_labels(io, config["num_classes"]))
    logits = training_logits(config, weights, classes, io["tokens"], io["order"])
    io |= {"logits": logits, "loss": cross_entropy(logits, io["tokens"].gather(1, io["order"]))}
    return recording("arpg", "loss", name, io, config, {}, weights)


def sized(name: str, counts: Iterable[tuple[int, int]]) -> Golden:
    """Group sizes by both schedules, of counts of places and steps."""
    cases, io = list[dict[str, Any]](), dict[str, Tensor]()
    for places, steps in counts:
        for schedule in ("arccos", "cosine"):
            io[f"group_sizes.{len(cases)}"] = torch.tensor(group_sizes(places, steps, schedule))
            cases.append({"positions": places, "num_iter": steps, "sample_schedule": schedule})
    return recording("arpg", "other", name, io, {}, {"cases": cases})


DEFAULTS = ("multiple_of", "ffn_dim_multiplier", "cls_token_num", "rope_base", "norm_eps")
DROPOUTS: Config = {
    "class_dropout_prob": 0.1,
    "token_dropout_p": 0.1,
    "attn_dropout_p": 0.1,
    "resid_dropout_p": 0.1,
    "ffn_dropout_p": 0.1,
}
EVERY_COUNT = [(places, steps) for places in (1, 4, 9, 25, 30) for steps in range(1, places + 1)]
LARGE_COUNTS = [(196, 49), (256, 8), (256, 16), (256, 255), (841, 32), (2304, 96), (4096, 64)]

MAKERS: dict[str, Callable[[str], Golden]] = {
    "grid-of-one-cell": partial(decoded, config=small_config(1), sampling={"num_iter": 1}),
    "one-step-one-image": partial(
        decoded, config=small_config(4), sampling={"guidance_scale": 3.0, "num_iter": 1}, batch=1
    ),
    "two-steps-by-cosine-odd-grid-2-layers": partial(
        decoded,
        config=small_config(5, n_layer=2, dim=48, n_head=4),
        sampling={"guidance_scale": 7.8, "sample_schedule": "cosine", "num_iter": 2},
        batch=3,
    ),
    "constant-scale-1-one-head-head-width-20": partial(
        decoded,
        config=small_config(3, n_layer=6, dim=20, n_head=1),
        sampling={"guidance_scale": 1.0, "cfg_schedule": "constant", "num_iter": 4},
    ),
    "scale-below-1-one-per-step-by-cosine": partial(
        decoded,
        config=small_config(4),
        sampling={"guidance_scale": 0.5, "sample_schedule": "cosine", "num_iter": 16},
    ),
    "width-multiplier-rotary-base-norm-epsilon": partial(
        decoded,
        config=small_config(5, ffn_dim_multiplier=1.3, multiple_of=8, rope_base=50, norm_eps=1e-2),
        sampling={"guidance_scale": 4.0, "num_iter": 7},
    ),
    "orders-of-their-own": partial(
        decoded, config=small_config(4), sampling={"num_iter": 5}, batch=3, own_orders=True
    ),
    "defaults-unsaid-64-steps-of-9x9": partial(
        decoded, config=small_config(9, n_layer=2, multiple_of=256), sampling={}, batch=1, unsaid=DEFAULTS
    ),
    "prefilled-split-unsaid-constant-by-cosine": partial(
        decoded,
        config=small_config(5),
        sampling={
            "guidance_scale": 3.0,
            "cfg_schedule": "constant",
            "sample_schedule": "cosine",
            "num_iter": 3,
        },
        batch=1,
        known=10,
        kind="other",
    ),
    "prefilled-joint-with-one": partial(
        decoded,
        config=small_config(4, n_layer=2),
        sampling={"guidance_scale": 3.0, "num_iter": 3, "prefill": "joint"},
        batch=3,
        known=1,
        kind="other",
    ),
    "prefilled-joint-orders-of-their-own-constant": partial(
        decoded,
        config=small_config(3),
        sampling={"cfg_schedule": "constant", "num_iter": 2, "prefill": "joint"},
        batch=1,
        known=5,
        own_orders=True,
    ),
    "prefilled-split-more-steps-than-places": partial(
        decoded,
        config=small_config(4),
        sampling={"guidance_scale": 3.0, "num_iter": 8, "prefill": "split"},
        known=11,
    ),
    "prefilled-split-all-but-one": partial(
        decoded,
        config=small_config(4),
        sampling={"guidance_scale": 3.0, "num_iter": 1, "prefill": "split"},
        known=15,
        kind="other",
    ),
    "loss-all-dropped-and-dropouts": partial(
        taught, config=small_config(4, **DROPOUTS), batch=3, dropped=[True, True, True]
    ),
    "loss-some-dropped-odd-grid-width-multiplier": partial(
        taught,
        config=small_config(5, ffn_dim_multiplier=0.7, multiple_of=1, norm_eps=1e-2),
        dropped=[False, True],
    ),
    "loss-one-image-2-layers-4-heads": partial(taught, config=small_config(3, n_layer=2, n_head=4), batch=1),
    "loss-one-cell": partial(taught, config=small_config(1)),
    "sizes-of-every-count": partial(sized, counts=EVERY_COUNT),
    "sizes-of-large-counts": partial(sized, counts=LARGE_COUNTS),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
