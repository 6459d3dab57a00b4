"""A naive LPD (Zhang et al., arXiv 2507.01957) from the specification alone.

Each step of a decode is a forward of its own over the class, all groups before and the queries of the step;
training is one forward under a mask written out pair by pair. Orders go through one cell at a time.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.naive.llamagen import TIED_LOGITS, filtered
from tests.naive.parts import (
    Config,
    Weights,
    cross_entropy,
    norm_scale,
    normal,
    recording,
    seeded,
    weight,
)
from tests.replays.common import Golden


def small_config(side: int, **changes: Any) -> Config:
    return {
        "img_size": 16 * side,
        "vqgan_stride": 16,
        "decoder_embed_dim": 32,
        "decoder_depth": 2,
        "decoder_num_heads": 2,
        "mlp_ratio": 4.0,
        "norm_eps": 1e-6,
        "class_num": 5,
        "vqgan_vocab_size": 40,
        **changes,
    }


def places_of(config: Config) -> int:
    return (config["img_size"] // config["vqgan_stride"]) ** 2


def network_weights(config: Config, generator: torch.Generator) -> Weights:
    width, codes = config["decoder_embed_dim"], config["vqgan_vocab_size"]
    hidden = int(width * config["mlp_ratio"])
    weights = {
        "fake_latent": normal(generator, 1, width),
        "pos_embed": normal(generator, 1, places_of(config) + 1, width),
        "mask_token": normal(generator, 1, 1, width),
        "class_emb.weight": normal(generator, config["class_num"], width),
        "token_emb.weight": normal(generator, codes, width),
        "head.weight": normal(generator, codes, width, scale=width**-0.5),
    }
    norms = ["z_proj_ln", "norm"]
    for block in range(config["decoder_depth"]):
        norms += [f"blocks.{block}.norm1", f"blocks.{block}.norm2"]
        for name, inputs, outputs in (
            ("attn.qkv", width, 3 * width),
            ("attn.proj", width, width),
            ("mlp.fc1", width, hidden),
            ("mlp.fc2", hidden, width),
        ):
            weights[f"blocks.{block}.{name}.weight"] = normal(generator, outputs, inputs, scale=inputs**-0.5)
            weights[f"blocks.{block}.{name}.bias"] = normal(generator, outputs, scale=0.3)
    for norm in norms:
        weights[f"{norm}.weight"] = norm_scale(generator, width)
        weights[f"{norm}.bias"] = normal(generator, width, scale=0.3)
    return weights


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weight(weights, name).T + weights[f"{name}.bias"]


def layer_norm(config: Config, weights: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / (variance + config["norm_eps"]).sqrt() * weight(weights, name) + weights[f"{name}.bias"]


def attention(config: Config, weights: Weights, name: str, x: Tensor, mask: Tensor) -> Tensor:
    """Attention of x [B, n, d]; mask, bool [n, n]: which inputs each input sees."""
    heads = config["decoder_num_heads"]
    head_width = x.shape[-1] // heads
    rows = linear(weights, f"{name}.qkv", x).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (heads, head_width)) for part in rows)  # [B, n, H, D]
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(head_width)
    share = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    attended = torch.einsum("bhij,bjhd->bihd", share, v).flatten(-2)  # [B, n, d]
    return linear(weights, f"{name}.proj", attended)


def feed_forward(weights: Weights, name: str, x: Tensor) -> Tensor:
    x = linear(weights, f"{name}.fc1", x)
    return linear(weights, f"{name}.fc2", 0.5 * x * (1 + torch.erf(x / math.sqrt(2))))


def forward(config: Config, weights: Weights, x: Tensor, mask: Tensor) -> Tensor:
    """Logits [B, n, V] at inputs x [B, n, d], of which positions are a part already."""
    x = layer_norm(config, weights, "z_proj_ln", x)
    for block in range(config["decoder_depth"]):
        name = f"blocks.{block}"
        x = x + attention(
            config, weights, f"{name}.attn", layer_norm(config, weights, f"{name}.norm1", x), mask
        )
        x = x + feed_forward(weights, f"{name}.mlp", layer_norm(config, weights, f"{name}.norm2", x))
    return layer_norm(config, weights, "norm", x) @ weight(weights, "head").T


def class_vectors(weights: Weights, labels: Tensor, dropped: Tensor) -> Tensor:
    """Class vectors [B, d] of labels [B]; where these are dropped, bool [B], the vector of no class."""
    return torch.where(
        dropped[:, None], weights["fake_latent"].double(), weight(weights, "class_emb")[labels]
    )


def position_vectors(weights: Weights, order: Tensor) -> Tensor:
    """[B, n, d] of raster places [B, n]; the table begins with the class's."""
    return weights["pos_embed"][0].double()[1 + order]


def content_inputs(weights: Weights, classes: Tensor, tokens: Tensor, order: Tensor) -> Tensor:
    """[B, 1 + n, d]: class vectors [B, d], then the tokens, of all [B, N], at the raster places [B, n]."""
    embedded = weight(weights, "token_emb")[tokens.gather(1, order)] + position_vectors(weights, order)
    return torch.cat([(classes + weights["pos_embed"][0, 0]).unsqueeze(1), embedded], dim=1)


def query_inputs(weights: Weights, order: Tensor) -> Tensor:
    return weights["mask_token"].double() + position_vectors(weights, order)


def training_mask(sizes: Sequence[int]) -> Tensor:
    """bool [n, n], which inputs each input sees: the class, all groups but the last, then all queries."""
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    inputs = [("content", 0)] + [("content", 1 + group) for group in groups if group < len(sizes) - 1]
    inputs += [("query", group) for group in groups]
    mask = torch.zeros(len(inputs), len(inputs), dtype=torch.bool)
    for i, (kind, block) in enumerate(inputs):
        for j, (seen_kind, seen_block) in enumerate(inputs):
            if seen_kind == "content":
                mask[i, j] = seen_block <= block
            else:
                mask[i, j] = kind == "query" and seen_block == block
    return mask


def training_logits(
    config: Config, weights: Weights, classes: Tensor, tokens: Tensor, order: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Logits [B, N, V] by the order [B, N], with class vectors [B, d]."""
    context = order[:, : order.shape[1] - sizes[-1]]
    content, queries = content_inputs(weights, classes, tokens, context), query_inputs(weights, order)
    logits = forward(config, weights, torch.cat([content, queries], dim=1), training_mask(sizes))
    return logits[:, content.shape[1] :]


def block_causal_mask(sizes: Sequence[int]) -> Tensor:
    """bool [n, n]: each input sees its own block and those before it."""
    block = torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)])
    return block[None, :] <= block[:, None]


def step_logits(
    config: Config, weights: Weights, classes: Tensor, tokens: Tensor, order: Tensor, blocks: Sequence[int]
) -> Tensor:
    """Logits [B, n, V] of the last block; the order [B, ...] is of these blocks alone."""
    context = order.shape[1] - blocks[-1]
    content = content_inputs(weights, classes, tokens, order[:, :context])
    queries = query_inputs(weights, order[:, context:])
    logits = forward(config, weights, torch.cat([content, queries], dim=1), block_causal_mask([1, *blocks]))
    return logits[:, content.shape[1] :]


def guidance_scales(sampling: dict[str, Any], unknown: int) -> Tensor:
    """Of each place that is not given, [U]."""
    scale = sampling["cfg"]
    if sampling.get("cfg_schedule", "linear") == "constant":
        return torch.full((unknown,), scale).double()
    return 1 + (scale - 1) * torch.arange(unknown).double() / unknown


def decode(
    config: Config,
    sampling: dict[str, Any],
    weights: Weights,
    labels: Tensor,
    tokens: Tensor,
    order: Tensor,
    sizes: Sequence[int],
    known: int,
) -> list[Tensor]:
    """Guided logits [B, n, V] of every step, by the order [B, N], whose first places are known."""
    dropped = torch.ones(len(labels), dtype=torch.bool)
    branches = (class_vectors(weights, labels, ~dropped), class_vectors(weights, labels, dropped))
    scales = guidance_scales(sampling, order.shape[1] - known)
    logits, before = [], [known] if known else []
    for step, size in enumerate(sizes):
        blocks, start = [*before, *sizes[: step + 1]], sum(sizes[:step])
        with_class, without = (
            step_logits(config, weights, classes, tokens, order[:, : sum(blocks)], blocks)
            for classes in branches
        )
        of_step = scales[start : start + size, None]
        guided = without + of_step * (with_class - without)
        logits.append(with_class if sampling["cfg"] == 1.0 else guided)
    return logits


def score(cell: int, chosen: set[int], side: int) -> float:
    """Chosen edge neighbours, and diagonal ones at 1 / sqrt(2) each."""
    row, column = divmod(cell, side)
    edges = diagonals = 0
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            inside = 0 <= row + down < side and 0 <= column + right < side
            if inside and (row + down) * side + column + right in chosen:
                edges += abs(down) + abs(right) == 1
                diagonals += abs(down) + abs(right) == 2
    return edges + diagonals / math.sqrt(2)


def rows_and_columns_between(one: int, other: int, side: int) -> tuple[int, int]:
    return abs(one // side - other // side), abs(one % side - other % side)


def farthest(pool: Sequence[int], group: Sequence[int], side: int) -> int:
    """The cell of the pool whose nearest member of the group is farthest away; the first of equals."""
    nearest = []
    for cell in pool:
        between = [rows_and_columns_between(cell, member, side) for member in group]
        nearest.append(min(rows**2 + columns**2 for rows, columns in between))
    return pool[nearest.index(max(nearest))]


def next_group(
    chosen: set[int],
    size: int,
    side: int,
    thresholds: tuple[float, float],
    tie_rank: Sequence[int],
    drawn: Callable[[Sequence[int]], int],
) -> list[int]:
    """The cells that follow those chosen; drawn: what a group without members takes from its pool."""
    proximity, repulsion = thresholds
    scores = {cell: score(cell, chosen, side) for cell in range(side**2) if cell not in chosen}
    by_score = sorted(scores, key=lambda cell: (-scores[cell], tie_rank[cell]))
    near = [cell for cell in by_score if scores[cell] >= proximity]
    far = [cell for cell in by_score if scores[cell] < proximity]
    group, rejected = list[int](), list[int]()
    while near and len(group) < size:
        cell = near.pop(0)
        between = [max(rows_and_columns_between(cell, member, side)) for member in group]
        if all(cells > repulsion for cells in between):
            group.append(cell)
        else:
            rejected.append(cell)
    pool = far + rejected
    if len(pool) <= size - len(group):
        return group + pool
    while len(group) < size:
        added = farthest(pool, group, side) if group else drawn(pool)
        pool.remove(added)
        group.append(added)
    return group


def random_inputs(config: Config, batch: int) -> tuple[Weights, dict[str, Tensor]]:
    generator, places = seeded(0), places_of(config)
    weights = network_weights(config, generator)
    return weights, {
        "labels": torch.randint(config["class_num"], (batch,), generator=generator),
        "tokens": torch.randint(config["vqgan_vocab_size"], (batch, places), generator=generator),
        "order": torch.stack([torch.randperm(places, generator=generator) for _ in range(batch)]),
    }


def decoded(
    name: str,
    config: Config,
    sampling: dict[str, Any],
    sizes: Sequence[int],
    batch: int = 2,
    known: int = 0,
    one_order: bool = False,
    unsaid: tuple[str, ...] = (),
    kind: str = "decode",
) -> Golden:
    """known: how many cells, the same in all rows, come first; unsaid: hyper-parameters at their published
    defaults, which the recording leaves out."""
    weights, io = random_inputs(config, batch)
    order = io["order"]
    if one_order:
        order = order[:1].expand(batch, -1)
    if known:
        first = order[0, :known]
        order = torch.stack([torch.cat([first, row[~torch.isin(row, first)]]) for row in order])
        io["known_positions"] = first
    logits = decode(config, sampling, weights, io["labels"], io["tokens"], order, sizes, known)
    unknown = order[0, known:] if one_order else order[:, known:]
    io |= {"order": unknown, "group_sizes": torch.tensor(sizes)}
    for step, positions in enumerate(unknown.split(list(sizes), dim=-1)):
        io |= {f"step_positions.{step}": positions, f"step_logits.{step}": logits[step]}
    said = {key: value for key, value in config.items() if key not in unsaid}
    return recording("lpd", kind, name, io, said, sampling, weights)


def taught(
    name: str, config: Config, sizes: Sequence[int], batch: int = 2, dropped: list[bool] | None = None
) -> Golden:
    weights, io = random_inputs(config, batch)
    if dropped is not None:
        io["label_dropped"] = torch.tensor(dropped)
    classes = class_vectors(weights, io["labels"], torch.tensor(dropped or [False] * batch))
    logits = training_logits(config, weights, classes, io["tokens"], io["order"], sizes)
    loss = cross_entropy(logits, io["tokens"].gather(1, io["order"]))
    io |= {"group_sizes": torch.tensor(sizes), "logits": logits, "loss": loss}
    return recording("lpd", "loss", name, io, config, {}, weights)


def ordered(
    name: str,
    side: int,
    sizes: Sequence[int],
    proximity: float = 1.0,
    repulsion: float = 1.0,
    unsaid: tuple[str, ...] = (),
) -> Golden:
    """Three orders and what they drew, -1 where nothing was."""
    random, rows, places = np.random.default_rng(0), 3, side**2
    first = random.integers(places, size=rows)
    tie_rank, fill_first = np.full((rows, len(sizes), places), -1), np.full((rows, len(sizes)), -1)
    order = [[cell] for cell in first.tolist()]
    for row in range(rows):
        for step in range(1, len(sizes)):
            free = np.setdiff1d(np.arange(places), order[row])
            tie_rank[row, step, free] = random.permutation(len(free))

            def drawn(pool: Sequence[int], at: tuple[int, int] = (row, step)) -> int:
                fill_first[at] = random.choice(pool)
                return int(fill_first[at])

            ranks, thresholds = tie_rank[row, step].tolist(), (proximity, repulsion)
            order[row] += next_group(set(order[row]), sizes[step], side, thresholds, ranks, drawn)
    config = {"grid_size": side, "proximity_threshold": proximity, "repulsion_threshold": repulsion}
    said = {key: value for key, value in config.items() if key not in unsaid}
    io = {"first": first, "tie_rank": tie_rank, "fps_first": fill_first, "order": order, "group_sizes": sizes}
    return recording("lpd", "order", name, {key: torch.as_tensor(value) for key, value in io.items()}, said)


def filtering(name: str, logits: Tensor, sampling: dict[str, Any]) -> Golden:
    io = {"logits": logits, "filtered": filtered(logits, **sampling)}
    return recording("lpd", "filter", name, io, {}, sampling)


MAKERS: dict[str, Callable[[str], Golden]] = {
    "grid-of-one-cell": partial(decoded, config=small_config(1), sampling={"cfg": 3.0}, sizes=[1]),
    "one-group-odd-grid-one-image": partial(
        decoded,
        config=small_config(3),
        sampling={"cfg": 3.0, "cfg_schedule": "linear"},
        sizes=[9],
        batch=1,
    ),
    "one-block-8-heads-5x5": partial(
        decoded,
        config=small_config(5, decoder_depth=1, decoder_num_heads=8),
        sampling={"cfg": 6.0, "cfg_schedule": "linear"},
        sizes=[1, 4, 4, 4, 8, 4],
    ),
    "constant-scale-0-one-head": partial(
        decoded,
        config=small_config(4, decoder_num_heads=1),
        sampling={"cfg": 0.0, "cfg_schedule": "constant"},
        sizes=[1, 5, 10],
        batch=3,
    ),
    "scale-below-1": partial(
        decoded, config=small_config(4), sampling={"cfg": 0.5, "cfg_schedule": "linear"}, sizes=[1, 15]
    ),
    "negative-scale-head-width-6": partial(
        decoded,
        config=small_config(4, decoder_embed_dim=24, decoder_num_heads=4),
        sampling={"cfg": -1.5, "cfg_schedule": "linear"},
        sizes=[2, 3, 11],
    ),
    "shrinking-groups-stride-8-narrow-mlp": partial(
        decoded,
        config=small_config(4, img_size=32, vqgan_stride=8, mlp_ratio=2.5),
        sampling={"cfg": 2.0, "cfg_schedule": "linear"},
        sizes=[8, 4, 3, 1],
    ),
    "one-order-for-all-rows-norm-epsilon": partial(
        decoded,
        config=small_config(4, norm_eps=1e-2),
        sampling={"cfg": 2.0, "cfg_schedule": "linear"},
        sizes=[2, 6, 8],
        batch=3,
        one_order=True,
    ),
    "defaults-unsaid": partial(
        decoded,
        config=small_config(4),
        sampling={"cfg": 2.5},
        sizes=[1, 1, 14],
        unsaid=("vqgan_stride", "mlp_ratio"),
    ),
    "prefilled-linear": partial(
        decoded,
        config=small_config(4),
        sampling={"cfg": 4.0, "cfg_schedule": "linear"},
        sizes=[2, 3, 4],
        known=7,
    ),
    "prefilled-constant-as-other": partial(
        decoded,
        config=small_config(4),
        sampling={"cfg": 2.5, "cfg_schedule": "constant"},
        sizes=[1, 4],
        batch=3,
        known=11,
        kind="other",
    ),
    "prefilled-unguided-all-but-one": partial(
        decoded, config=small_config(4), sampling={"cfg": 1.0}, sizes=[1], batch=1, known=15
    ),
    "loss-one-group": partial(taught, config=small_config(4), sizes=[16]),
    "loss-shrinking-groups-some-dropped": partial(
        taught,
        config=small_config(5, norm_eps=1e-2, mlp_ratio=2.0),
        sizes=[13, 8, 3, 1],
        batch=3,
        dropped=[True, False, True],
    ),
    "loss-all-dropped-and-dropouts": partial(
        taught,
        config=small_config(3, attn_dropout=0.1, proj_dropout=0.1, label_drop_prob=0.1),
        sizes=[3, 2, 4],
        dropped=[True, True],
    ),
    "loss-none-dropped-one-image": partial(
        taught, config=small_config(4), sizes=[1, 2, 13], batch=1, dropped=[False]
    ),
    "order-of-one-cell": partial(ordered, side=1, sizes=[1]),
    "order-group-takes-its-pool": partial(ordered, side=3, sizes=[1, 8], repulsion=2.0),
    "order-all-near": partial(ordered, side=5, sizes=[1, 3, 6, 15], proximity=0.0),
    "order-none-near": partial(ordered, side=5, sizes=[1, 2, 1, 9, 4, 8], proximity=7.0),
    "order-score-at-the-threshold": partial(
        ordered, side=6, sizes=[1, 2, 9, 3, 5, 4, 12], proximity=1 + 1 / math.sqrt(2)
    ),
    "order-fractional-repulsion": partial(ordered, side=7, sizes=[1, 3, 5, 7, 9, 11, 13], repulsion=1.5),
    "order-repulsion-across-the-grid": partial(ordered, side=5, sizes=[1, 2, 3, 4, 15], repulsion=10.0),
    "order-defaults-unsaid": partial(
        ordered,
        side=4,
        sizes=[1, 1, 2, 4, 8],
        unsaid=("grid_size", "proximity_threshold", "repulsion_threshold"),
    ),
    "filter-ties-hot-and-top-p": partial(
        filtering, logits=TIED_LOGITS, sampling={"temperature": 1.7, "top_k": 5, "top_p": 0.7}
    ),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
