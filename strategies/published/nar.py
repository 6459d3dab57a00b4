"""NAR: LlamaGen's keys, one more block and its head (arXiv 2503.10696)."""

from backbones.checkpoints import KeyMap
from backbones.shapes import Measured, Shapes
from strategies.nar import NAR
from strategies.published.llamagen import (
    LLAMAGEN_DEFAULTS,
    LLAMAGEN_KEYS,
    llamagen_config,
    llamagen_measure,
    llamagen_setting,
)
from strategies.published.naming import Published


def measure(file: Shapes) -> Measured:
    """LlamaGen's, with a block more than its depth says."""
    found = llamagen_measure(file)
    return Measured({**found.names, "n_layer": found.names["n_layer"] - 1}, found.unseen)


PUBLISHED = Published(
    strategy="nar",
    family="nar",
    keys=KeyMap(
        {
            **LLAMAGEN_KEYS,
            "below_norm.weight": "medusa_norm.weight",
            "below_head.weight": "medusa_output.weight",
        },
        ignored=("freqs_cis",),
    ),
    configure=lambda names: (NAR(), llamagen_config(names)),
    setting=llamagen_setting,
    defaults=LLAMAGEN_DEFAULTS,
    measure=measure,
)
