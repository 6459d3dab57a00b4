"""RAR: keys, hyper-parameters and settings of its published networks (arXiv 2411.00776)."""

import math
from collections.abc import Mapping
from typing import Any

from backbones.checkpoints import KeyMap, KeyRows
from backbones.config import Dropout, NetworkConfig, TrunkConfig
from backbones.shapes import Measured, Shapes, side_of
from strategies.decoding.guidance import Guidance
from strategies.published.naming import Published, Setting
from strategies.rar import RAR, SPARE_ROWS, SPARE_STEPS

KEYS: dict[str, str | tuple[str | KeyRows, ...]] = {
    "start": "cls_token",
    "positions": "pos_embed",
    "target_positions": "target_aware_pos_embed",
    "step_embeddings": "timesteps_embeddings",
    "embeddings.weight": "embeddings.weight",
    **{
        f"trunk.blocks.{{i}}.{ours}.{kind}": f"blocks.{{i}}.{theirs}.{kind}"
        for ours, theirs in (
            ("norm1", "norm1"),
            ("norm2", "norm2"),
            ("attention.qkv", "attn.qkv"),
            ("attention.q_norm", "attn.q_norm"),
            ("attention.k_norm", "attn.k_norm"),
            ("attention.out", "attn.proj"),
            ("mlp.up", "mlp.fc1"),
            ("mlp.down", "mlp.fc2"),
            ("modulation", "adaLN_modulation.1"),
        )
        for kind in ("weight", "bias")
    },
    "final_modulation.weight": "adaln_before_head.adaLN_modulation.1.weight",
    "final_modulation.bias": "adaln_before_head.adaLN_modulation.1.bias",
    "head.weight": "lm_head.weight",
    "head.bias": "lm_head.bias",
}


def configure(names: Mapping[str, Any]) -> tuple[RAR, NetworkConfig]:
    width, places = names["hidden_size"], names["image_seq_len"]
    side = math.isqrt(places)
    grid = (side, side) if side * side == places else (1, places)  # nothing in the network knows of rows
    trunk = TrunkConfig(
        depth=names["num_hidden_layers"],
        width=width,
        heads=names["num_attention_heads"],
        # Through a floating-point ratio as published; it loses 1 for odd combinations.
        mlp_width=int(width * (names["intermediate_size"] / width)),
        norm="layer",
        norm_eps=1e-6,
        mlp="gelu",
        bias=True,
        qk_norm=True,
        positions="learned",
        conditioning="adaln",
        dropout=Dropout(attention=names["attn_drop"], residual=names["dropout"], hidden=names["dropout"]),
    )
    return RAR(), NetworkConfig(trunk, names["codebook_size"], names["condition_num_classes"], grid)


def setting(names: Mapping[str, Any]) -> Setting:
    """Scale 0 switches guidance off."""
    scale = names.get("guidance_scale", 0.0)
    guidance = Guidance(scale, "power-cosine", power=names["guidance_scale_pow"]) if scale != 0 else None
    return Setting(guidance, names.get("randomize_temperature", 1.0))


def measure(file: Shapes) -> Measured:
    """Everything shows: heads by the width of their norms, the grid by the position tables."""
    width = file.size(("blocks.{i}.norm1.weight", 0), ("cls_token", 2), ("embeddings.weight", 1))
    codes = file.size(("lm_head.weight", 0), ("lm_head.bias", 0))
    spare_rows, spare_steps = ("pos_embed", SPARE_ROWS), ("timesteps_embeddings", SPARE_STEPS)
    table, spare = next((one for one in (spare_rows, spare_steps) if one[0] in file), spare_rows)
    places = file.size((table, 1)) - spare
    side_of(places, table)
    names = {
        "num_hidden_layers": file.layers("blocks.{i}.norm1.weight", "blocks.{i}.attn.qkv.weight"),
        "hidden_size": width,
        "num_attention_heads": width
        // file.size(
            *((f"blocks.{{i}}.attn.{of}_norm.{kind}", 0) for of in "qk" for kind in ("weight", "bias"))
        ),
        "intermediate_size": file.size(("blocks.{i}.mlp.fc1.weight", 0), ("blocks.{i}.mlp.fc2.weight", 1)),
        "image_seq_len": places,
        "codebook_size": codes,
        "condition_num_classes": file.size(("embeddings.weight", 0), otherwise=codes + 1002) - codes - 2,
    }
    return Measured(names)


PUBLISHED = Published(
    strategy="rar",
    family="rar",
    keys=KeyMap(KEYS),
    configure=configure,
    setting=setting,
    defaults={
        "image_seq_len": 256,
        "condition_num_classes": 1000,
        "codebook_size": 1024,
        "dropout": 0.1,
        "attn_drop": 0.1,
    },
    measure=measure,
)
