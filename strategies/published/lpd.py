"""LPD: keys, hyper-parameters and settings of its published networks (arXiv 2507.01957)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.checkpoints import KeyMap, KeyRows
from backbones.config import Dropout, NetworkConfig, TrunkConfig
from backbones.shapes import Measured, Shapes, side_of
from strategies.decoding.guidance import Guidance
from strategies.lpd import LPD
from strategies.published.naming import Published, Setting

KEYS: dict[str, str | tuple[str | KeyRows, ...]] = {
    "class_embedding.weight": ("class_emb.weight", KeyRows("fake_latent", 1)),
    "token_embedding.weight": "token_emb.weight",
    "query": "mask_token",
    "positions": "pos_embed",
    "input_norm.weight": "z_proj_ln.weight",
    "input_norm.bias": "z_proj_ln.bias",
    **{
        f"trunk.blocks.{{i}}.{ours}.{kind}": f"blocks.{{i}}.{theirs}.{kind}"
        for ours, theirs in (
            ("norm1", "norm1"),
            ("norm2", "norm2"),
            ("attention.qkv", "attn.qkv"),
            ("attention.out", "attn.proj"),
            ("mlp.up", "mlp.fc1"),
            ("mlp.down", "mlp.fc2"),
        )
        for kind in ("weight", "bias")
    },
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
    "head.weight": "head.weight",
}


def configure(names: Mapping[str, Any]) -> tuple[LPD, NetworkConfig]:
    width, side = names["decoder_embed_dim"], names["img_size"] // names["vqgan_stride"]
    trunk = TrunkConfig(
        depth=names["decoder_depth"],
        width=width,
        heads=names["decoder_num_heads"],
        mlp_width=int(width * names["mlp_ratio"]),
        norm="layer",
        norm_eps=names["norm_eps"],
        mlp="gelu",
        bias=True,
        positions="learned",
        dropout=Dropout(residual=names["proj_dropout"], hidden=names["proj_dropout"]),
    )
    return LPD(), NetworkConfig(trunk, names["vqgan_vocab_size"], names["class_num"], (side, side))


def setting(names: Mapping[str, Any]) -> Setting:
    """Guidance is off for a scale of exactly 1."""
    scale = names.get("cfg", 1.0)
    guidance = Guidance(scale, names.get("cfg_schedule", "linear")) if scale != 1.0 else None
    return Setting(guidance, names.get("temperature", 1.0), names.get("top_k", 0), names.get("top_p", 1.0))


def measure(file: Shapes) -> Measured:
    """The grid shows by the position table, which has a row for the class; heads don't show."""
    width = file.size(("norm.weight", 0), ("blocks.{i}.norm1.weight", 0), ("token_emb.weight", 1))
    stride = 16
    names = {
        "decoder_depth": file.layers("blocks.{i}.norm1.weight", "blocks.{i}.attn.qkv.weight"),
        "decoder_embed_dim": width,
        "decoder_num_heads": 1,
        "vqgan_stride": stride,
        "img_size": stride * side_of(file.size(("pos_embed", 1), otherwise=257) - 1, "pos_embed"),
        "vqgan_vocab_size": file.size(("token_emb.weight", 0), ("head.weight", 0)),
        "class_num": file.size(("class_emb.weight", 0), otherwise=1000),
    }
    return Measured(names, frozenset({"heads"}))


def regridded(state: Mapping[str, Tensor], grid: tuple[int, int]) -> Mapping[str, Tensor]:
    """With the position table [1, 1 + g^2, d], whose first row is the class's, fitted to a grid of N places,
    [1, 1 + N, d]: bicubically, as the paper's training on 512 pixels begins with its network of 256."""
    table = state.get("pos_embed")
    if table is None or table.ndim != 3 or table.shape[1] == 1 + grid[0] * grid[1]:
        return state
    side = side_of(table.shape[1] - 1, "pos_embed")
    cells = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [1, d, g, g]
    fitted = F.interpolate(cells.float(), size=grid, mode="bicubic")
    fitted = fitted.permute(0, 2, 3, 1).flatten(1, 2)  # [1, N, d]
    return {**state, "pos_embed": torch.cat([table[:, :1].float(), fitted], dim=1)}


PUBLISHED = Published(
    strategy="lpd",
    family="lpd",
    keys=KeyMap(KEYS),
    configure=configure,
    setting=setting,
    defaults={
        "vqgan_stride": 16,
        "mlp_ratio": 4.0,
        "norm_eps": 1e-6,
        "class_num": 1000,
        "vqgan_vocab_size": 16384,
        "proj_dropout": 0.1,
        "attn_dropout": 0.1,
        "label_drop_prob": 0.1,
    },
    measure=measure,
    regridded=regridded,
)
