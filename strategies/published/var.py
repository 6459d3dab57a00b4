"""VAR: keys, hyper-parameters and settings of its published networks (arXiv 2404.02905)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from backbones.checkpoints import CheckpointError, KeyMap, KeyRows
from backbones.config import NetworkConfig, TrunkConfig
from backbones.shapes import Measured, Shapes
from backbones.tokenizers.multiscale import sides_for
from pardec.errors import UserError
from strategies.decoding.guidance import Guidance
from strategies.published.naming import Published, Setting
from strategies.var import VAR, VARNetwork, scale_mask

KEYS: dict[str, str | tuple[str | KeyRows, ...]] = {
    "class_embedding.weight": "class_emb.weight",
    "features.{rest}": "word_embed.{rest}",
    "levels.weight": "lvl_embed.weight",
    "start": "pos_start",
    "positions": "pos_1LC",
    "trunk.blocks.{i}.attention.qkv.weight": "blocks.{i}.attn.mat_qkv.weight",
    "trunk.blocks.{i}.attention.query_value_bias": ("blocks.{i}.attn.q_bias", "blocks.{i}.attn.v_bias"),
    "trunk.blocks.{i}.attention.log_factor": "blocks.{i}.attn.scale_mul_1H11",
    "trunk.blocks.{i}.attention.out.{rest}": "blocks.{i}.attn.proj.{rest}",
    "trunk.blocks.{i}.mlp.up.{rest}": "blocks.{i}.ffn.fc1.{rest}",
    "trunk.blocks.{i}.mlp.down.weight": "blocks.{i}.ffn.fc2.weight",
    "trunk.blocks.{i}.mlp.down.bias": "blocks.{i}.ffn.fc2.bias",
    "trunk.blocks.{i}.modulation.{rest}": "blocks.{i}.ada_lin.1.{rest}",
    "offsets.{i}": "blocks.{i}.ada_gss",
    "modulation.{rest}": "shared_ada_lin.1.{rest}",
    "final_modulation.{rest}": "head_nm.ada_lin.1.{rest}",
    "head.{rest}": "head.{rest}",
}


def scale_of_place(network: VARNetwork) -> Tensor:
    """Number of every place's map, int64 [1, L]."""
    return torch.repeat_interleave(torch.tensor([side**2 for side in network.sides]))[None]


def masking_bias(network: VARNetwork) -> Tensor:
    """0 where a place sees another, else -inf: float32 [1, 1, L, L]."""
    seen = scale_mask(network.sides, torch.device("cpu"))
    return torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))[None, None]


BUFFERS = {
    "lvl_1L": scale_of_place,
    "attn_bias_for_masking": masking_bias,
    r"blocks\.\d+\.attn\.zero_k_bias": lambda network: torch.zeros(network.config.trunk.width),
}
"""What follows from the sides, and the bias that keys don't have."""


def configure(names: Mapping[str, Any]) -> tuple[VAR, NetworkConfig]:
    if not names["attn_l2_norm"]:
        raise UserError("attn_l2_norm = false: no published network of VAR is without it; expected true")
    sides = tuple(names["patch_nums"])
    trunk = TrunkConfig(
        depth=names["depth"],
        width=names["embed_dim"],
        heads=names["num_heads"],
        mlp_width=round(names["embed_dim"] * names["mlp_ratio"]),
        norm="plain",
        norm_eps=1e-6,
        mlp="gelu-tanh",
        bias=True,
        cosine=True,
        positions="learned",
        conditioning="shared-adaln" if names["shared_aln"] else "adaln",
    )
    told = "" if sides == sides_for(sides[-1]) else " ".join(map(str, sides))
    config = NetworkConfig(trunk, names["V"], names["num_classes"], (sides[-1], sides[-1]))
    return VAR(scales=told, code_width=names["Cvae"]), config


def setting(names: Mapping[str, Any]) -> Setting:
    """``cfg`` is what the scale adds to 1 at the last map; ``top_p`` 0 is off."""
    if names.get("more_smooth", False):
        raise UserError("more_smooth = true: features from soft codes, for pictures alone, are not built")
    return Setting(
        Guidance(1.0 + names.get("cfg", 1.5), "linear"),
        names.get("temperature", 1.0),
        names.get("top_k", 0),
        names.get("top_p", 0.0) or 1.0,
    )


def measure(file: Shapes) -> Measured:
    """Everything shows; the sides as far as they are the published ones of some grid."""
    width = file.size(("pos_start", 2), ("class_emb.weight", 1), ("word_embed.weight", 0))
    places, scales = file.size(("pos_1LC", 1)), file.size(("lvl_embed.weight", 0))
    known = (sides_for(last) for last in range(1, 65))
    sides = next((one for one in known if (sum(s * s for s in one), len(one)) == (places, scales)), None)
    if sides is None:
        raise CheckpointError(
            f"'pos_1LC' shows {places} places of {scales} maps, which no published sides have"
        )
    names = {
        "depth": file.layers("blocks.{i}.attn.mat_qkv.weight", "blocks.{i}.ffn.fc1.weight"),
        "embed_dim": width,
        "num_heads": file.size(("blocks.{i}.attn.scale_mul_1H11", 1)),
        "shared_aln": "shared_ada_lin.1.weight" in file,
        "patch_nums": sides,
        "V": file.size(("head.weight", 0), ("head.bias", 0)),
        "Cvae": file.size(("word_embed.weight", 1), otherwise=32),
        "num_classes": file.size(("class_emb.weight", 0)) - 1,
    }
    return Measured(names)


PUBLISHED = Published(
    strategy="var",
    family="var",
    keys=KeyMap(KEYS, computed=BUFFERS),
    configure=configure,
    setting=setting,
    defaults={
        "patch_nums": (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        "V": 4096,
        "Cvae": 32,
        "num_classes": 1000,
        "mlp_ratio": 4.0,
        "shared_aln": False,
        "attn_l2_norm": True,
    },
    measure=measure,
)
