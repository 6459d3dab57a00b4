"""pardec from Python: what a script, a notebook or a strategy of one's own needs, by one import.

    import pardec
    strategy = pardec.get("lpd", order="random")
    plan = strategy.plan((8, 8), 12, pardec.Streams(0, images=(0, 1)))
    rows = pardec.load_rows("results/runs/quick")

Names are imported on first use: ``import pardec`` alone imports no torch, and nothing of ours. The modules of
this package are the ground floor, which every room may import and which imports none; the rooms import its
modules and never these names.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backbones.config import NetworkConfig, TrunkConfig
    from backbones.networks import Networks
    from backbones.tokenizers import load_tokenizer
    from backbones.transformer import Network, View
    from pardec.errors import UserError
    from results.schema import Row
    from results.store import load_rows
    from strategies.decoding.base import Lesson, Strategy, TrainingFree
    from strategies.decoding.contract import check_strategy
    from strategies.decoding.decode import Decoded, decode
    from strategies.decoding.guidance import Guidance
    from strategies.decoding.plan import Plan
    from strategies.decoding.presets import preset
    from strategies.decoding.registry import get, names
    from strategies.decoding.requests import EVERYWHERE, Accept, Ask, Commit, Draft, Drawn, Redraw, Uniform
    from strategies.decoding.sampling import ForcedSampler, StreamSampler
    from strategies.decoding.streams import Streams
    from strategies.decoding.trace import Committed, Drafted

__all__ = [
    "EVERYWHERE",
    "Accept",
    "Ask",
    "Commit",
    "Committed",
    "Decoded",
    "Draft",
    "Drafted",
    "Drawn",
    "ForcedSampler",
    "Guidance",
    "Lesson",
    "Network",
    "NetworkConfig",
    "Networks",
    "Plan",
    "Redraw",
    "Row",
    "Strategy",
    "StreamSampler",
    "Streams",
    "TrainingFree",
    "TrunkConfig",
    "Uniform",
    "UserError",
    "View",
    "check_strategy",
    "decode",
    "get",
    "load_rows",
    "load_tokenizer",
    "names",
    "preset",
]
_HOMES = {
    "backbones.config": ("NetworkConfig", "TrunkConfig"),
    "backbones.networks": ("Networks",),
    "backbones.tokenizers": ("load_tokenizer",),
    "backbones.transformer": ("Network", "View"),
    "pardec.errors": ("UserError",),
    "results.schema": ("Row",),
    "results.store": ("load_rows",),
    "strategies.decoding.base": ("Lesson", "Strategy", "TrainingFree"),
    "strategies.decoding.contract": ("check_strategy",),
    "strategies.decoding.decode": ("Decoded", "decode"),
    "strategies.decoding.guidance": ("Guidance",),
    "strategies.decoding.plan": ("Plan",),
    "strategies.decoding.presets": ("preset",),
    "strategies.decoding.registry": ("get", "names"),
    "strategies.decoding.requests": (
        "EVERYWHERE",
        "Accept",
        "Ask",
        "Commit",
        "Draft",
        "Drawn",
        "Redraw",
        "Uniform",
    ),
    "strategies.decoding.sampling": ("ForcedSampler", "StreamSampler"),
    "strategies.decoding.streams": ("Streams",),
    "strategies.decoding.trace": ("Committed", "Drafted"),
}
_HOME_OF = {name: module for module, found in _HOMES.items() for name in found}


def __getattr__(name: str) -> Any:
    """The object of that name, from the room that owns it."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'pardec' has no attribute '{name}'; it has {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
