"""MaskGIT of Besnier et al.: keys, hyper-parameters and settings of its networks (arXiv 2503.17076).

Both of its samplers decode them: by confidence (``maskgit``) and in Halton order (``halton``).
"""

from collections.abc import Mapping
from typing import Any

from backbones.checkpoints import CheckpointError, KeyMap
from backbones.config import Dropout, NetworkConfig, TrunkConfig, round_up
from backbones.shapes import Measured, Shapes, side_of
from strategies.decoding.guidance import Guidance
from strategies.maskgit import MaskGIT
from strategies.published.naming import Published, Setting

BLOCK, LAYER = "trunk.blocks.{i}", "transformer.layers.{i}"
KEYS: dict[str, str | tuple[str, ...]] = {
    "class_embedding.weight": "cls_emb.weight",
    "token_embedding.weight": "tok_emb.weight",
    "positions": "pos_emb.weight",
    "registers": "reg_tokens.weight",
    f"{BLOCK}.modulation.weight": f"{LAYER}.mlp.1.weight",
    f"{BLOCK}.modulation.bias": f"{LAYER}.mlp.1.bias",
    f"{BLOCK}.norm1.weight": f"{LAYER}.ln1.weight",
    f"{BLOCK}.norm2.weight": f"{LAYER}.ln2.weight",
    f"{BLOCK}.attention.qkv.weight": (
        f"{LAYER}.attn.wq.weight",
        f"{LAYER}.attn.wk.weight",
        f"{LAYER}.attn.wv.weight",
    ),
    f"{BLOCK}.attention.out.weight": f"{LAYER}.attn.wo.weight",
    f"{BLOCK}.mlp.up.weight": (f"{LAYER}.ff.w1.weight", f"{LAYER}.ff.w3.weight"),
    f"{BLOCK}.mlp.down.weight": f"{LAYER}.ff.w2.weight",
    "norm.weight": "last_norm.norm_final.weight",
    "norm_bias": "last_norm.norm_final.bias",
    "final_modulation.weight": "last_norm.mlp.1.weight",
    "final_modulation.bias": "last_norm.mlp.1.bias",
    "head_bias": "head.bias",
}


def configure(names: Mapping[str, Any]) -> tuple[MaskGIT, NetworkConfig]:
    side, width = names["input_size"], names["hidden_dim"]
    rate = names["dropout"]
    trunk = TrunkConfig(
        depth=names["depth"],
        width=width,
        heads=names["heads"],
        head_size=width // names["heads"],
        mlp_width=round_up(int(2 * names["mlp_dim"] / 3), 256),
        norm_eps=1e-5,
        qk_norm="rms",
        positions="learned",
        conditioning="adaln",
        dropout=Dropout(attention=rate, attended=rate, hidden=rate),
    )
    grid, registers = (side, side), names["register"]
    config = NetworkConfig(trunk, names["codebook_size"], names["nclass"], grid, registers=registers)
    return MaskGIT(resample_known=True), config


def setting(names: Mapping[str, Any]) -> Setting:
    """Weight w is the scale 1 + w, constant in Halton order, rising from 1 by confidence; 0 is no guidance.
    ``sm_temp`` multiplies logits."""
    weight = names.get("w", 0.0)
    by_confidence = names.get("sampler") == "confidence"
    guidance = Guidance(1 + weight, "linear" if by_confidence else "constant") if weight else None
    return Setting(guidance, 1 / names.get("sm_temp", 1.0), max(names.get("top_k", -1), 0))


def measure(file: Shapes) -> Measured:
    """The number of heads leaves a trace only where it doesn't divide the width."""
    width = file.size(("last_norm.norm_final.weight", 0), ("tok_emb.weight", 1), (f"{LAYER}.ln1.weight", 0))
    attended = file.size(*((f"{LAYER}.attn.w{one}.weight", 0) for one in "qkv"), otherwise=width)
    heads = next((count for count in range(1, width) if count * (width // count) == attended), None)
    if heads is None:
        raise CheckpointError(f"'attn.wq' shows {attended} rows, which no number of heads has")
    names = {
        "input_size": side_of(file.size(("pos_emb.weight", 0)), "pos_emb.weight"),
        "hidden_dim": width,
        "codebook_size": file.size(("tok_emb.weight", 0), ("head.weight", 0), ("head.bias", 0)) - 1,
        "depth": file.layers(f"{LAYER}.ln1.weight", f"{LAYER}.attn.wq.weight"),
        "heads": heads,
        "mlp_dim": 3 * file.size((f"{LAYER}.ff.w2.weight", 1), (f"{LAYER}.ff.w1.weight", 0)) // 2,
        "nclass": file.size(("cls_emb.weight", 0), otherwise=1001) - 1,
        "register": file.size(("reg_tokens.weight", 0), otherwise=0),
    }
    return Measured(names, frozenset({"heads"}))


PUBLISHED = Published(
    strategy="maskgit",
    family="maskgit",
    keys=KeyMap(KEYS, tied={"head.weight": "tok_emb.weight"}),
    configure=configure,
    setting=setting,
    defaults={"codebook_size": 16384, "nclass": 1000, "register": 1, "dropout": 0.1},
    measure=measure,
)
