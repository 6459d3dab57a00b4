"""A naive LPD (Zhang et al., arXiv 2507.01957) from the specification alone.

Each step of a decode is a forward of its own over the class, all groups before and the queries of the step;
training is one forward under a mask written out pair by pair.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.naive.llamagen import TIED_LOGITS, filtered
from tests.naive.parts import (
    Config,
    Tensors,
    Weights,
    block_causal_mask,
    cross_entropy,
    dot_product_attention,
    gelu_feed_forward,
    guided,
    label_drops,
    layer_norm,
    linear,
    linear_weights,
    norm_weights,
    normal,
    random_orders,
    recorded_steps,
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
            weights |= linear_weights(f"blocks.{block}.{name}", inputs, outputs, generator)
    for norm in norms:
        weights |= norm_weights(norm, width, generator)
    return weights


def attention(config: Config, weights: Weights, name: str, x: Tensor, mask: Tensor) -> Tensor:
    """Attention of x [B, n, d]; mask, bool [n, n]: which inputs each input sees."""
    rows = linear(weights, f"{name}.qkv", x).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (config["decoder_num_heads"], -1)) for part in rows)  # [B, n, H, D]
    return linear(weights, f"{name}.proj", dot_product_attention(q, k, v, mask))


def forward(config: Config, weights: Weights, x: Tensor, mask: Tensor) -> Tensor:
    """Logits [B, n, V] at inputs x [B, n, d], of which positions are a part already."""
    epsilon = config["norm_eps"]
    x = layer_norm(weights, "z_proj_ln", x, epsilon)
    for block in range(config["decoder_depth"]):
        name = f"blocks.{block}"
        normed = layer_norm(weights, f"{name}.norm1", x, epsilon)
        x = x + attention(config, weights, f"{name}.attn", normed, mask)
        x = x + gelu_feed_forward(weights, f"{name}.mlp", layer_norm(weights, f"{name}.norm2", x, epsilon))
    return layer_norm(weights, "norm", x, epsilon) @ weight(weights, "head").T


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


def query_logits(
    config: Config,
    weights: Weights,
    classes: Tensor,
    tokens: Tensor,
    context: Tensor,
    asked: Tensor,
    mask: Tensor,
) -> Tensor:
    """Logits [B, n, V] of the places asked [B, n] by class vectors [B, d] and the places before, [B, m]."""
    content, queries = content_inputs(weights, classes, tokens, context), query_inputs(weights, asked)
    return forward(config, weights, torch.cat([content, queries], dim=1), mask)[:, content.shape[1] :]


def training_logits(
    config: Config, weights: Weights, classes: Tensor, tokens: Tensor, order: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Logits [B, N, V] by the order [B, N]."""
    context = order[:, : order.shape[1] - sizes[-1]]
    return query_logits(config, weights, classes, tokens, context, order, training_mask(sizes))


def step_logits(
    config: Config, weights: Weights, classes: Tensor, tokens: Tensor, order: Tensor, blocks: Sequence[int]
) -> Tensor:
    """Logits [B, n, V] of the last block; the order [B, ...] is of these blocks alone."""
    context, asked = order.split([order.shape[1] - blocks[-1], blocks[-1]], dim=1)
    mask = block_causal_mask([1, *blocks])
    return query_logits(config, weights, classes, tokens, context, asked, mask)


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
        mixed = guided(with_class, without, scales[start : start + size, None])
        logits.append(with_class if sampling["cfg"] == 1.0 else mixed)
    return logits


def random_inputs(config: Config, batch: int) -> tuple[Weights, Tensors]:
    generator, places = seeded(0), places_of(config)
    weights = network_weights(config, generator)
    return weights, {
        "labels": torch.randint(config["class_num"], (batch,), generator=generator),
        "tokens": torch.randint(config["vqgan_vocab_size"], (batch, places), generator=generator),
        "order": random_orders(torch.arange(places), batch, generator),
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
    """known: how many cells, the same in all rows, come first."""
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
    io |= recorded_steps(logits, unknown.split(list(sizes), dim=-1))
    return recording("lpd", kind, name, io, config, sampling, weights, unsaid)


def taught(
    name: str, config: Config, sizes: Sequence[int], batch: int = 2, dropped: list[bool] | None = None
) -> Golden:
    weights, io = random_inputs(config, batch)
    io |= label_drops(dropped)
    classes = class_vectors(weights, io["labels"], torch.tensor(dropped or [False] * batch))
    logits = training_logits(config, weights, classes, io["tokens"], io["order"], sizes)
    loss = cross_entropy(logits, io["tokens"].gather(1, io["order"]))
    io |= {"group_sizes": torch.tensor(sizes), "logits": logits, "loss": loss}
    return recording("lpd", "loss", name, io, config, {}, weights)


def filtering(name: str, logits: Tensor, sampling: dict[str, Any]) -> Golden:
    io = {"logits": logits, "filtered": filtered(logits, **sampling)}
    return recording("lpd", "filter", name, io, {}, sampling)


MAKERS: dict[str, Callable[[str], Golden]] = {
    "grid-of-one-cell": partial(decoded, config=small_config(1), sampling={"cfg": 3.0}, sizes=[1]),
    "one-group-odd-grid-one-image": partial(
        decoded, config=small_config(3), sampling={"cfg": 3.0, "cfg_schedule": "linear"}, sizes=[9], batch=1
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
    "filter-ties-hot-and-top-p": partial(
        filtering, logits=TIED_LOGITS, sampling={"temperature": 1.7, "top_k": 5, "top_p": 0.7}
    ),
}
CASES: dict[str, Callable[[], Golden]] = {name: partial(make, name) for name, make in MAKERS.items()}
