"""PAR: LlamaGen's keys and its transition tokens (arXiv 2412.15119)."""

from collections.abc import Mapping
from typing import Any

from backbones.checkpoints import KeyMap
from backbones.config import NetworkConfig
from backbones.shapes import Measured, Shapes
from pardec.errors import UserError
from strategies.par import PAR
from strategies.published.llamagen import (
    LLAMAGEN_DEFAULTS,
    LLAMAGEN_KEYS,
    llamagen_config,
    llamagen_measure,
    llamagen_setting,
)
from strategies.published.naming import Published


def regions_of(names: Mapping[str, Any]) -> int:
    """Tokens predicted at once, by either of the two numbers that say it; 4 as published."""
    return names.get("ar_token_num", names.get("spe_token_num", 3) + 1)


def configure(names: Mapping[str, Any]) -> tuple[PAR, NetworkConfig]:
    regions = regions_of(names)
    transition = names.get("spe_token_num", regions - 1)
    if transition != regions - 1:
        raise UserError(f"spe_token_num = {transition}: expected {regions - 1}, ar_token_num - 1")
    return PAR(regions=regions), llamagen_config(names)


TRANSITION_KEY = "spe_tok_embeddings.special_embeddings.weight"


def measure(file: Shapes) -> Measured:
    """LlamaGen's, and n - 1 transition tokens."""
    found = llamagen_measure(file)
    transition = file.size((TRANSITION_KEY, 0), otherwise=3)
    names = {**found.names, "ar_token_num": transition + 1, "spe_token_num": transition}
    return Measured(names, found.unseen, {"regions": str(transition + 1)})


PUBLISHED = Published(
    strategy="par",
    family="par",
    keys=KeyMap({**LLAMAGEN_KEYS, "transition.weight": TRANSITION_KEY}),
    configure=configure,
    setting=llamagen_setting,
    defaults=LLAMAGEN_DEFAULTS,
    measure=measure,
)
