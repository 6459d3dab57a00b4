"""Raster: one token a step, row by row, by a plain causal decoder (LlamaGen, Sun et al., 2406.06525)."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from backbones.checkpoints import KeyMap
from backbones.checkpoints import Rows as KeyRows
from backbones.config import Dropout, NetworkConfig, TrunkConfig, swiglu_width
from backbones.shapes import Measured, Shapes
from backbones.transformer import Network, Trunk, View, make_norm
from strategies.decoding.base import Lesson, Strategy, raster_lesson
from strategies.decoding.decode import Ask, Decoding, Rows
from strategies.decoding.guidance import Guidance
from strategies.decoding.orders import raster
from strategies.decoding.plan import Plan
from strategies.decoding.published import Published, Setting
from strategies.decoding.schedules import one_per_step
from strategies.decoding.streams import Streams


class RasterNetwork(Network):
    """Class vector, then tokens; the output at each place predicts the next token."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        config.trunk.require(type(self).__name__, positions="rotary", conditioning="prefix")
        width = config.trunk.width
        self.class_embedding = nn.Embedding(config.classes + config.null_class, width)
        self.token_embedding = nn.Embedding(config.codes, width)
        self.trunk = Trunk(config.trunk)
        self.norm = make_norm(config.trunk)
        self.head = nn.Linear(width, config.codes, bias=False)

    def forward(
        self, x: Tensor, phases: Tensor | None, view: View, cache: Any = None, asked: slice = slice(None)
    ) -> Tensor:
        """Logits [R, n, V] of those of the embedded rows x [R, m, d] that are ``asked`` for."""
        return self.head(self.norm(self.trunk(x, phases, view, cache)[:, asked])).float()


@dataclass(frozen=True)
class Raster(Strategy[RasterNetwork]):
    name: ClassVar[str] = "raster"
    title: ClassVar[str] = "Raster"
    paper: ClassVar[str] = "2406.06525"
    lossless: ClassVar[bool] = True

    def network(self, config: NetworkConfig) -> RasterNetwork:
        return RasterNetwork(config)

    def lesson(
        self, batch: int, grid: tuple[int, int], generator: torch.Generator, progress: float
    ) -> Lesson:
        return raster_lesson(batch, grid)

    def taught_logits(self, network: RasterNetwork, tokens: Tensor, labels: Tensor, lesson: Lesson) -> Tensor:
        prefix = network.class_embedding(labels).unsqueeze(1)  # [B, 1, d]
        x = torch.cat([prefix, network.token_embedding(tokens[:, :-1])], dim=1)  # [B, N, d]
        phases = network.phases(torch.arange(tokens.shape[1], device=tokens.device))
        return network(network.drop_embedded(x), phases, View(causal=True))

    def allowed_steps(self, grid: tuple[int, int], given: int = 0) -> range:
        places = grid[0] * grid[1]
        return range(places, places + 1)

    def sizes(self, grid: tuple[int, int], steps: int, given: int = 0) -> tuple[int, ...]:
        return one_per_step(grid[0] * grid[1])

    def orders(
        self, grid: tuple[int, int], sizes: tuple[int, ...], streams: Streams, known: np.ndarray
    ) -> np.ndarray:
        return raster(grid)

    def cache_shape(self, config: NetworkConfig) -> tuple[int, int]:
        return config.trunk.depth, config.places

    def decode(self, network: RasterNetwork, plan: Plan, rows: Rows) -> Decoding:
        phases = network.phases(torch.arange(plan.places, device=network.device))
        layers, slots = self.cache_shape(network.config)
        cache = network.cache(len(rows), slots, layers)
        x = network.class_embedding(rows.labels).unsqueeze(1)  # [R, 1, d]
        for slot, at in enumerate(plan.groups()):
            here = None if phases is None else phases[slot : slot + 1]
            tokens = yield Ask(network(x, here, View(start=slot), cache), at)
            x = network.token_embedding(tokens)  # [R, 1, d]


def llamagen_config(names: Mapping[str, Any]) -> NetworkConfig:
    """LlamaGen's hyper-parameters, as its code names them; PAR's are the same."""
    side = round(names["block_size"] ** 0.5)
    trunk = TrunkConfig(
        depth=names["n_layer"],
        width=names["dim"],
        heads=names["n_head"],
        kv_heads=names["n_kv_head"],
        mlp_width=swiglu_width(names["dim"], names["multiple_of"], names["ffn_dim_multiplier"]),
        norm_eps=names["norm_eps"],
        rotary_base=names["rope_base"],
        dropout=Dropout(
            embedding=names["token_dropout_p"],
            attention=names["attn_dropout_p"],
            residual=names["resid_dropout_p"],
        ),
    )
    return NetworkConfig(
        trunk, names["vocab_size"], names["num_classes"], (side, side), names["class_dropout_prob"] > 0
    )


def llamagen_measure(file: Shapes) -> Measured:
    """Rotary phases leave no trace in a file, so neither the grid nor the number of heads does.

    Of grouped heads only the common width of the key heads shows, (rows of wqkv - d) / 2.
    """
    norm = "layers.{i}.attention_norm.weight"
    width = file.size(("norm.weight", 0), (norm, 0), ("tok_embeddings.weight", 1), ("output.weight", 1))
    shared = (file.size(("layers.{i}.attention.wqkv.weight", 0), otherwise=3 * width) - width) // 2
    head_width = gcd(width, shared)
    names = {
        "n_layer": file.layers(norm, "layers.{i}.attention.wqkv.weight", "layers.{i}.feed_forward.w1.weight"),
        "dim": width,
        "n_head": width // head_width,
        "n_kv_head": None if shared == width else shared // head_width,
        "vocab_size": file.size(("tok_embeddings.weight", 0), ("output.weight", 0)),
        "num_classes": file.size(("cls_embedding.embedding_table.weight", 0), otherwise=1001) - 1,
    }
    return Measured(names, frozenset({"heads", "grid"}))


def llamagen_setting(names: Mapping[str, Any]) -> Setting:
    """LlamaGen guides only for a scale above 1; a non-negative interval counts predictions."""
    scale, interval = names.get("cfg_scale", 1.0), names.get("cfg_interval", -1)
    guidance = Guidance(scale, interval=int(interval)) if scale > 1 else None
    return Setting(guidance, names.get("temperature", 1.0), names.get("top_k", 0), names.get("top_p", 1.0))


LLAMAGEN_KEYS: dict[str, str | tuple[str | KeyRows, ...]] = {
    "class_embedding.weight": "cls_embedding.embedding_table.weight",
    "token_embedding.weight": "tok_embeddings.weight",
    "trunk.blocks.{i}.norm1.weight": "layers.{i}.attention_norm.weight",
    "trunk.blocks.{i}.attention.qkv.weight": "layers.{i}.attention.wqkv.weight",
    "trunk.blocks.{i}.attention.out.weight": "layers.{i}.attention.wo.weight",
    "trunk.blocks.{i}.norm2.weight": "layers.{i}.ffn_norm.weight",
    "trunk.blocks.{i}.mlp.up.weight": (
        "layers.{i}.feed_forward.w1.weight",
        "layers.{i}.feed_forward.w3.weight",
    ),
    "trunk.blocks.{i}.mlp.down.weight": "layers.{i}.feed_forward.w2.weight",
    "norm.weight": "norm.weight",
    "head.weight": "output.weight",
}
LLAMAGEN_DEFAULTS = {
    "n_kv_head": None,
    "multiple_of": 256,
    "ffn_dim_multiplier": None,
    "rope_base": 10_000,
    "norm_eps": 1e-5,
    "num_classes": 1000,
    "class_dropout_prob": 0.1,
    "vocab_size": 16384,
    "block_size": 256,
    "token_dropout_p": 0.1,
    "attn_dropout_p": 0.0,
    "resid_dropout_p": 0.1,
    "ffn_dropout_p": 0.1,
}

Raster.published = Published(
    family="llamagen",
    keys=KeyMap(LLAMAGEN_KEYS, ignored=("freqs_cis",)),
    configure=lambda names: (Raster(), llamagen_config(names)),
    setting=llamagen_setting,
    defaults=LLAMAGEN_DEFAULTS,
    measure=llamagen_measure,
)
