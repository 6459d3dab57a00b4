"""LlamaGen: keys, hyper-parameters and settings of its published networks (arXiv 2406.06525)."""

from collections.abc import Mapping
from math import floor, gcd, isqrt
from typing import Any

from backbones.checkpoints import KeyMap, KeyRows
from backbones.config import Dropout, NetworkConfig, TrunkConfig, swiglu_width
from backbones.shapes import Measured, Shapes
from pardec.errors import UserError
from strategies.decoding.guidance import Guidance
from strategies.published.naming import Published, Setting
from strategies.raster import Raster


def llamagen_config(names: Mapping[str, Any]) -> NetworkConfig:
    """LlamaGen's hyper-parameters, as its code names them; PAR's and ARPG's are the same."""
    side = isqrt(names["block_size"])
    if side * side != names["block_size"]:
        raise UserError(f"block_size = {names['block_size']}: expected a square, the places of a grid")
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
    scale, interval = names.get("cfg_scale", 1.0), names.get("cfg_interval")
    last = -1 if interval is None else floor(interval)  # published as a float
    guidance = Guidance(scale, interval=last) if scale > 1 else None
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
    "dim": 4096,
    "n_layer": 32,
    "n_head": 32,
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

PUBLISHED = Published(
    strategy="raster",
    family="llamagen",
    keys=KeyMap(LLAMAGEN_KEYS, ignored=("freqs_cis",)),
    configure=lambda names: (Raster(), llamagen_config(names)),
    setting=llamagen_setting,
    defaults=LLAMAGEN_DEFAULTS,
    measure=llamagen_measure,
)
