"""RandAR: LlamaGen's keys and its instruction vector (arXiv 2412.01827)."""

from collections.abc import Mapping
from typing import Any

from backbones.checkpoints import KeyMap
from backbones.config import NetworkConfig
from strategies.decoding.guidance import linear_guidance
from strategies.published.llamagen import (
    LLAMAGEN_DEFAULTS,
    LLAMAGEN_KEYS,
    llamagen_config,
    llamagen_measure,
)
from strategies.published.naming import Published, Setting
from strategies.randar import RandAR


def configure(names: Mapping[str, Any]) -> tuple[RandAR, NetworkConfig]:
    return RandAR(order=names["position_order"]), llamagen_config(names)


def setting(names: Mapping[str, Any]) -> Setting:
    """A count of -1 means one token a step, and one step becomes two."""
    steps = names.get("num_inference_steps", 88)
    return Setting(
        linear_guidance(names.get("cfg_scales", (1.0, 4.0))),
        names.get("temperature", 1.0),
        names.get("top_k", 0),
        names.get("top_p", 1.0),
        None if steps == -1 else max(steps, 2),
    )


PUBLISHED = Published(
    strategy="randar",
    family="randar",
    # Files saved after sampling hold the caches.
    keys=KeyMap(
        {**LLAMAGEN_KEYS, "instruction": "pos_instruct_embeddings"},
        ignored=(r"layers\.\d+\.attention\.kv_cache\.[kv]_cache",),
    ),
    configure=configure,
    setting=setting,
    defaults={**LLAMAGEN_DEFAULTS, "position_order": "random"},
    measure=llamagen_measure,
)
