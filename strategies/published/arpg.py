"""ARPG: keys, hyper-parameters and settings of its published networks (arXiv 2503.10568)."""

from collections.abc import Mapping
from typing import Any

from backbones.checkpoints import KeyMap, KeyRows
from backbones.config import NetworkConfig
from backbones.shapes import Measured, Shapes
from strategies.arpg import ARPG
from strategies.decoding.guidance import Guidance
from strategies.published.llamagen import llamagen_config
from strategies.published.naming import Published, Setting

KEYS: dict[str, str | tuple[str | KeyRows, ...]] = {
    "embeddings.weight": "embeddings.weight",
    "content.blocks.{i}.norm1.weight": "layers.self_dec.{i}.attn_norm.weight",
    "content.blocks.{i}.attention.qkv.weight": tuple(
        f"layers.self_dec.{{i}}.attn.to_{part}.weight" for part in "qkv"
    ),
    "content.blocks.{i}.attention.out.weight": "layers.self_dec.{i}.attn.proj.weight",
    "content.blocks.{i}.norm2.weight": "layers.self_dec.{i}.ffn_norm.weight",
    "content.blocks.{i}.mlp.up.weight": tuple(f"layers.self_dec.{{i}}.ffn.w{part}.weight" for part in "13"),
    "content.blocks.{i}.mlp.down.weight": "layers.self_dec.{i}.ffn.w2.weight",
    "content_norm.weight": "layers.norm.weight",
    "key.weight": "layers.to_k.weight",
    "value.weight": "layers.to_v.weight",
    "queries.blocks.{i}.norm1.weight": "layers.cross_dec.{i}.attn_norm.weight",
    "queries.blocks.{i}.attention.query.weight": "layers.cross_dec.{i}.attn.to_q.weight",
    "queries.blocks.{i}.attention.out.weight": "layers.cross_dec.{i}.attn.proj.weight",
    "queries.blocks.{i}.norm2.weight": "layers.cross_dec.{i}.ffn_norm.weight",
    "queries.blocks.{i}.mlp.up.weight": tuple(f"layers.cross_dec.{{i}}.ffn.w{part}.weight" for part in "13"),
    "queries.blocks.{i}.mlp.down.weight": "layers.cross_dec.{i}.ffn.w2.weight",
    "norm.weight": "norm.weight",
    "head.weight": "head.weight",
}


def configure(names: Mapping[str, Any]) -> tuple[ARPG, NetworkConfig]:
    """LlamaGen's hyper-parameters; as many keys as queries, and always a row for "no class"."""
    return ARPG(), llamagen_config({**names, "n_kv_head": None, "class_dropout_prob": 1.0})


def setting(names: Mapping[str, Any]) -> Setting:
    """There is no unguided path: scale 1 computes both halves."""
    guidance = Guidance(names.get("guidance_scale", 4.0), names.get("cfg_schedule", "linear"))
    return Setting(
        guidance,
        names.get("temperature", 1.0),
        names.get("top_k", 0),
        names.get("top_p", 1.0),
        names.get("num_iter"),
    )


def measure(file: Shapes) -> Measured:
    """Rotary phases leave no trace in a file, so neither the grid nor the number of heads does."""
    halves = ("layers.self_dec.{i}", "layers.cross_dec.{i}")
    norms = tuple((f"{half}.attn_norm.weight", 0) for half in halves)
    codes = file.size(("head.weight", 0), otherwise=16384)
    names = {
        "n_layer": sum(file.layers(f"{half}.attn_norm.weight", f"{half}.ffn.w2.weight") for half in halves),
        "dim": file.size(("norm.weight", 0), *norms, ("embeddings.weight", 1)),
        "n_head": 1,
        "vocab_size": codes,
        # Codes, mask, classes, "no class", one reserved row.
        "num_classes": file.size(("embeddings.weight", 0), otherwise=codes + 1003) - codes - 3,
    }
    return Measured(names, frozenset({"heads", "grid"}))


PUBLISHED = Published(
    strategy="arpg",
    family="arpg",
    keys=KeyMap(KEYS),
    configure=configure,
    setting=setting,
    defaults={
        "multiple_of": 256,
        "ffn_dim_multiplier": None,
        "rope_base": 10_000,
        "norm_eps": 1e-5,
        "vocab_size": 16384,
        "num_classes": 1000,
        "block_size": 256,
        "cls_token_num": 1,
        "token_dropout_p": 0.1,
        "attn_dropout_p": 0.0,
        "resid_dropout_p": 0.1,
        "ffn_dropout_p": 0.1,
    },
    measure=measure,
)
