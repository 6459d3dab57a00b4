"""What naive implementations share: layers, LlamaGen's network (arXiv 2406.06525), how recordings are made.

From the specification alone. Weights lie under the published keys in single precision; all arithmetic is
in double precision, so that the rounding that a replay shows is the replayed code's alone.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.replays.common import Golden

Config = dict[str, Any]
Tensors = dict[str, Tensor]
"""What a recording holds, by name."""
Weights = Tensors
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


GROUPED_WIDE: Config = {"n_kv_head": 2, "ffn_dim_multiplier": 1.3, "multiple_of": 10}
GROUPED_NARROW: Config = {
    "n_kv_head": 2,
    "ffn_dim_multiplier": 0.7,
    "multiple_of": 1,
    "attn_dropout_p": 0.2,
    "drop_path_rate": 0.2,
}
OTHER_CONSTANTS: Config = {
    "norm_eps": 1e-2,
    "rope_base": 100,
    "token_dropout_p": 0.1,
    "resid_dropout_p": 0.3,
}
"""Changes of the small network; dropout changes nothing that is recorded."""


def side_of(config: Config) -> int:
    return math.isqrt(config["block_size"])


def normal(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=generator)


def norm_scale(generator: torch.Generator, width: int) -> Tensor:
    return 1 + normal(generator, width, scale=0.3)


def norm_weights(name: str, width: int, generator: torch.Generator, offset: float = 0.3) -> Weights:
    return {
        f"{name}.weight": norm_scale(generator, width),
        f"{name}.bias": normal(generator, width, scale=offset),
    }


def linear_weights(
    name: str, inputs: int, outputs: int, generator: torch.Generator, scale: float = 1.0, offset: float = 0.3
) -> Weights:
    return {
        f"{name}.weight": normal(generator, outputs, inputs, scale=scale * inputs**-0.5),
        f"{name}.bias": normal(generator, outputs, scale=offset),
    }


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


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weight(weights, name).T + weights[f"{name}.bias"].double()


def silu(x: Tensor) -> Tensor:
    return x * x.sigmoid()


def feed_forward(weights: Weights, name: str, x: Tensor) -> Tensor:
    """SwiGLU."""
    gate, value = x @ weight(weights, f"{name}.w1").T, x @ weight(weights, f"{name}.w3").T
    return (silu(gate) * value) @ weight(weights, f"{name}.w2").T


def gelu_feed_forward(weights: Weights, name: str, x: Tensor) -> Tensor:
    x = linear(weights, f"{name}.fc1", x)
    return linear(weights, f"{name}.fc2", x * (1 + torch.erf(x / math.sqrt(2))) / 2)


def normalised(x: Tensor, epsilon: float) -> Tensor:
    """Mean 0 and variance 1 over the last axis."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()


def layer_norm(weights: Weights, name: str, x: Tensor, epsilon: float) -> Tensor:
    return normalised(x, epsilon) * weight(weights, name) + weights[f"{name}.bias"].double()


def rms_norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt() * scale


def dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, empty: Tensor | None = None
) -> Tensor:
    """[B, n, d] of q [B, n, H, D] and k, v [B, m, H, D].

    mask, bool [n, m] or [B, n, m]: which keys each query sees, all where there is none. empty, int [n]: how
    many slots each query sees besides that hold nothing, a zero key and a zero value.
    """
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(-3), -math.inf)
    if empty is not None:
        there = torch.arange(int(empty.max())) < empty.unsqueeze(-1)  # [n, slots]
        nothing = torch.zeros(there.shape).double().masked_fill(~there, -math.inf)
        scores = torch.cat([scores, nothing.expand(*scores.shape[:2], -1, -1)], dim=-1)
    share = scores.softmax(dim=-1)[..., : k.shape[1]]
    return torch.einsum("bhij,bjhd->bihd", share, v).flatten(-2)


def causal_mask(length: int) -> Tensor:
    """bool [n, n]: each input sees those before it and itself."""
    return torch.ones(length, length).tril().bool()


def block_causal_mask(sizes: Iterable[int]) -> Tensor:
    """bool [n, n]: each input sees its own block and those before it."""
    block = torch.tensor([number for number, size in enumerate(sizes) for _ in range(size)])
    return block[None, :] <= block[:, None]


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


def attention(
    config: Config,
    weights: Weights,
    index: int,
    x: Tensor,
    phases: Phases,
    mask: Tensor,
    empty: Tensor | None = None,
) -> Tensor:
    """Attention of x [B, n, d] to itself; a key and a value serve several neighbouring queries' heads."""
    heads, shared_heads, name = config["n_head"], config["n_kv_head"] or config["n_head"], f"layers.{index}"
    rows = x @ weight(weights, f"{name}.attention.wqkv").T
    parts = rows.unflatten(-1, (heads + 2 * shared_heads, -1))  # [B, n, heads of q, k and v, D]
    q, k, v = parts.split([heads, shared_heads, shared_heads], dim=2)
    k, v = (part.repeat_interleave(heads // shared_heads, dim=2) for part in (rotate(k, phases), v))
    attended = dot_product_attention(rotate(q, phases), k, v, mask, empty)
    return attended @ weight(weights, f"{name}.attention.wo").T


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
    return x + feed_forward(weights, f"layers.{index}.feed_forward", normed)


def head(config: Config, weights: Weights, x: Tensor, norm: str = "norm", output: str = "output") -> Tensor:
    return rms_norm(x, weight(weights, norm), config["norm_eps"]) @ weight(weights, output).T


def forward(
    config: Config, weights: Weights, x: Tensor, phases: Phases, mask: Tensor, empty: Tensor | None = None
) -> Tensor:
    """Logits [B, n, V] at every input x [B, n, d]."""
    for index in range(config["n_layer"]):
        x = block(config, weights, index, x, phases, mask, empty)
    return head(config, weights, x)


def raster_logits(config: Config, weights: Weights, labels: Tensor, tokens: Tensor) -> Tensor:
    """Logits [B, n + 1, V] behind the class and behind each of the first tokens [B, n] in raster order."""
    x = torch.cat([embed_class(weights, labels), embed_tokens(weights, tokens)], dim=1)
    phases = grid_phases(config, torch.arange(-1, tokens.shape[1]))
    return forward(config, weights, x, phases, causal_mask(x.shape[1]))


def null_labels(config: Config, labels: Tensor) -> Tensor:
    return torch.full_like(labels, config["num_classes"])


def guided(with_class: Tensor, without: Tensor, scale: float | Tensor) -> Tensor:
    return without + scale * (with_class - without)


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean over all predictions, of logits [B, N, V] and the tokens [B, N] that they predict."""
    chance = logits.log_softmax(dim=-1).gather(-1, tokens.unsqueeze(-1))
    return -chance.mean()


def random_labels(config: Config, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, config["num_classes"], (batch,), generator=generator)


def random_tokens(config: Config, batch: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, config["vocab_size"], (batch, config["block_size"]), generator=generator)


def random_inputs(config: Config, batch: int, generator: torch.Generator) -> Tensors:
    return {
        "labels": random_labels(config, batch, generator),
        "tokens": random_tokens(config, batch, generator),
    }


def random_orders(places: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """Orders [B, n] of the places [n], one for each row of the batch."""
    return torch.stack([places[torch.randperm(len(places), generator=generator)] for _ in range(batch)])


def label_drops(dropped: list[bool] | None) -> Tensors:
    """What a loss records of the rows whose class is dropped; None: nothing is told of any row."""
    return {} if dropped is None else {"label_dropped": torch.tensor(dropped)}


def taught_labels(io: Tensors, null: int) -> Tensor:
    """The recorded labels [B], and null where they are dropped."""
    return torch.where(io["label_dropped"], null, io["labels"]) if "label_dropped" in io else io["labels"]


def numbered(name: str, tensors: Iterable[Tensor]) -> Tensors:
    return {f"{name}.{number}": tensor for number, tensor in enumerate(tensors)}


def recorded_steps(logits: Iterable[Tensor], positions: Iterable[Tensor]) -> Tensors:
    """Of each step logits [B, n, V] and the places [n] or [B, n] that they predict."""
    io = Tensors()
    for step, (predictions, predicted) in enumerate(zip(logits, positions, strict=True)):
        io |= {f"step_logits.{step}": predictions, f"step_positions.{step}": predicted}
    return io


def recording(
    family: str,
    kind: str,
    name: str,
    io: Tensors,
    config: Config | None = None,
    sampling: dict[str, Any] | None = None,
    weights: Weights | None = None,
    unsaid: Sequence[str] = (),
    unrecorded: Sequence[str] = (),
) -> Golden:
    """A recording as files hold them: floating-point numbers in single precision.

    unsaid: hyper-parameters that follow from others or stand at published defaults, and unrecorded: tensors,
    that it leaves out.
    """
    config = {key: value for key, value in (config or {}).items() if key not in unsaid}
    io = {
        key: value.float() if value.is_floating_point() else value
        for key, value in io.items()
        if key not in unrecorded
    }
    return Golden(Path("naive") / name, family, kind, config, sampling or {}, io, weights or {})
