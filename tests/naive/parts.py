"""What naive implementations share: LlamaGen's network (arXiv 2406.06525), and how recordings are made.

From the specification alone. Weights lie under the published keys in single precision; all arithmetic is
in double precision, so that the rounding that a replay shows is the replayed code's alone.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.replays.common import Golden

Config = dict[str, Any]
Weights = dict[str, Tensor]
Phases = tuple[Tensor, Tensor]
"""Cosines and sines of the rotation at each position, [n, D / 2] or [B, n, D / 2]."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_config(side: int, **changes: Any) -> Config:
    """LlamaGen's hyper-parameters by their published names: a small network of a square grid."""
    return {
        "dim": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_kv_head": None,
        "multiple_of": 32,
        "ffn_dim_multiplier": None,
        "rope_base": 10000,
        "norm_eps": 1e-5,
        "class_dropout_prob": 0.1,
        "num_classes": 7,
        "vocab_size": 50,
        "cls_token_num": 1,
        "model_type": "c2i",
        "block_size": side * side,
        "token_dropout_p": 0.0,
        "attn_dropout_p": 0.0,
        "resid_dropout_p": 0.0,
        "ffn_dropout_p": 0.0,
        "drop_path_rate": 0.0,
        **changes,
    }


def side_of(config: Config) -> int:
    return math.isqrt(config["block_size"])


def normal(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=generator)


def norm_scale(generator: torch.Generator, width: int) -> Tensor:
    return 1 + normal(generator, width, scale=0.3)


def feed_forward_width(config: Config) -> int:
    """Two thirds of 4 d, times the multiplier, each cut to an integer; then up to a whole multiple."""
    width = int(2 * 4 * config["dim"] / 3)
    if config["ffn_dim_multiplier"] is not None:
        width = int(config["ffn_dim_multiplier"] * width)
    while width % config["multiple_of"] != 0:
        width += 1
    return width


def block_weights(config: Config, index: int, generator: torch.Generator) -> Weights:
    width, hidden = config["dim"], feed_forward_width(config)
    head_width = width // config["n_head"]
    shared_heads = config["n_kv_head"] or config["n_head"]
    rows = (config["n_head"] + 2 * shared_heads) * head_width
    inner, outer = width**-0.5, hidden**-0.5
    weights = {
        "attention.wqkv": normal(generator, rows, width, scale=1.5 * inner),
        "attention.wo": normal(generator, width, width, scale=inner),
        "feed_forward.w1": normal(generator, hidden, width, scale=inner),
        "feed_forward.w3": normal(generator, hidden, width, scale=inner),
        "feed_forward.w2": normal(generator, width, hidden, scale=outer),
        "attention_norm": norm_scale(generator, width),
        "ffn_norm": norm_scale(generator, width),
    }
    return {f"layers.{index}.{name}.weight": value for name, value in weights.items()}


def network_weights(config: Config, generator: torch.Generator) -> Weights:
    """The published state dict; the null class has a row of its own where labels are ever dropped."""
    width, codes = config["dim"], config["vocab_size"]
    classes = config["num_classes"] + (1 if config["class_dropout_prob"] > 0 else 0)
    weights = {
        "cls_embedding.embedding_table.weight": normal(generator, classes, width),
        "tok_embeddings.weight": normal(generator, codes, width),
        "norm.weight": norm_scale(generator, width),
        "output.weight": normal(generator, codes, width, scale=1.2 * width**-0.5),
    }
    for index in range(config["n_layer"]):
        weights |= block_weights(config, index, generator)
    return weights


def weight(weights: Weights, name: str) -> Tensor:
    return weights[f"{name}.weight"].double()


def embed_class(weights: Weights, labels: Tensor) -> Tensor:
    """The class vector of labels [B] as a sequence of one, [B, 1, d]."""
    return weight(weights, "cls_embedding.embedding_table")[labels].unsqueeze(1)


def embed_tokens(weights: Weights, tokens: Tensor) -> Tensor:
    return weight(weights, "tok_embeddings")[tokens]


def grid_phases(config: Config, places: Tensor) -> Phases:
    """Rotations at raster places [...], row angles before column angles; -1, nowhere: zero, not unrotated."""
    half = config["dim"] // config["n_head"] // 2
    frequency = config["rope_base"] ** (-2 * torch.arange(half // 2).double() / half)
    row = places.div(side_of(config), rounding_mode="floor")
    column = places % side_of(config)
    angles = torch.cat([row[..., None] * frequency, column[..., None] * frequency], dim=-1)  # [..., D / 2]
    somewhere = (places >= 0).unsqueeze(-1)
    return angles.cos() * somewhere, angles.sin() * somewhere


def rotate(x: Tensor, phases: Phases) -> Tensor:
    """Rotates neighbouring pairs of the entries of every head, x [B, n, H, D]."""
    cosine, sine = (table.unsqueeze(-2) for table in phases)  # the same for all heads
    first, second = x[..., 0::2], x[..., 1::2]
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return torch.stack(turned, dim=-1).flatten(-2)


def rms_norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt() * scale


def attention(
    config: Config,
    weights: Weights,
    index: int,
    x: Tensor,
    phases: Phases,
    mask: Tensor,
    empty: Tensor | None = None,
) -> Tensor:
    """Attention of x [B, n, d]; mask, bool [n, n] or [B, n, n]: which inputs each input sees.

    empty, int [n]: how many slots each input sees besides that hold nothing, a zero key and a zero value.
    """
    heads, shared_heads = config["n_head"], config["n_kv_head"] or config["n_head"]
    head_width = config["dim"] // heads
    rows = x @ weight(weights, f"layers.{index}.attention.wqkv").T
    q, k, v = (
        part.unflatten(-1, (-1, head_width))
        for part in rows.split(
            [heads * head_width, shared_heads * head_width, shared_heads * head_width], dim=-1
        )
    )  # [B, n, H, D]
    q, k = rotate(q, phases), rotate(k, phases)
    k, v = (part.repeat_interleave(heads // shared_heads, dim=2) for part in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(head_width)
    scores = scores.masked_fill(~mask.unsqueeze(-3), -math.inf)
    if empty is not None:
        there = torch.arange(int(empty.max())) < empty.unsqueeze(-1)  # [n, slots]
        nothing = torch.zeros(there.shape).double().masked_fill(~there, -math.inf)
        scores = torch.cat([scores, nothing.expand(*scores.shape[:2], -1, -1)], dim=-1)
    share = scores.softmax(dim=-1)[..., : x.shape[1]]
    attended = torch.einsum("bhij,bjhd->bihd", share, v).flatten(-2)  # [B, n, d]
    return attended @ weight(weights, f"layers.{index}.attention.wo").T


def feed_forward(weights: Weights, index: int, x: Tensor) -> Tensor:
    gate = x @ weight(weights, f"layers.{index}.feed_forward.w1").T
    value = x @ weight(weights, f"layers.{index}.feed_forward.w3").T
    return (gate * gate.sigmoid() * value) @ weight(weights, f"layers.{index}.feed_forward.w2").T


def block(
    config: Config,
    weights: Weights,
    index: int,
    x: Tensor,
    phases: Phases,
    mask: Tensor,
    empty: Tensor | None = None,
) -> Tensor:
    epsilon = config["norm_eps"]
    normed = rms_norm(x, weight(weights, f"layers.{index}.attention_norm"), epsilon)
    x = x + attention(config, weights, index, normed, phases, mask, empty)
    normed = rms_norm(x, weight(weights, f"layers.{index}.ffn_norm"), epsilon)
    return x + feed_forward(weights, index, normed)


def head(config: Config, weights: Weights, x: Tensor, norm: str = "norm", output: str = "output") -> Tensor:
    return rms_norm(x, weight(weights, norm), config["norm_eps"]) @ weight(weights, output).T


def forward(
    config: Config, weights: Weights, x: Tensor, phases: Phases, mask: Tensor, empty: Tensor | None = None
) -> Tensor:
    """Logits [B, n, V] at every input x [B, n, d]."""
    for index in range(config["n_layer"]):
        x = block(config, weights, index, x, phases, mask, empty)
    return head(config, weights, x)


def causal_mask(length: int) -> Tensor:
    """bool [n, n]: each input sees those before it and itself."""
    return torch.ones(length, length).tril().bool()


def null_labels(config: Config, labels: Tensor) -> Tensor:
    return torch.full_like(labels, config["num_classes"])


def guided(with_class: Tensor, without: Tensor, scale: float) -> Tensor:
    return without + scale * (with_class - without)


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean over all predictions, of logits [B, N, V] and the tokens [B, N] that they predict."""
    chance = logits.log_softmax(dim=-1).gather(-1, tokens.unsqueeze(-1))
    return -chance.mean()


def random_labels(config: Config, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, config["num_classes"], (batch,), generator=generator)


def random_tokens(config: Config, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, config["vocab_size"], (batch, config["block_size"]), generator=generator)


def recording(
    family: str,
    kind: str,
    name: str,
    io: dict[str, Tensor],
    config: Config | None = None,
    sampling: dict[str, Any] | None = None,
    weights: Weights | None = None,
) -> Golden:
    """A recording as files hold them: floating-point numbers in single precision."""
    io = {key: value.float() if value.is_floating_point() else value for key, value in io.items()}
    return Golden(Path("naive") / name, family, kind, config or {}, sampling or {}, io, weights or {})
