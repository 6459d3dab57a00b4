"""Replays recordings of published implementations through the public loader and decode loop.

What to replay is read off the family, the kind and the tensors of a file, never off its name. A family whose
recordings are more than the common kinds has a module of its name here, with rules by kind (``REPLAYS``).
Every rule returns the largest difference found; codes, orders, sizes and step counts must agree exactly.
"""

from importlib import import_module
from importlib.util import find_spec

from tests.replays.common import COMMON, Golden, read_golden

__all__ = ["Golden", "read_golden", "replay"]


def replay(golden: Golden) -> float:
    """The largest difference between the recording and what ours computes; ValueError where no rule does."""
    own = f"{__name__}.{golden.family.replace('-', '_')}"
    rules = COMMON | (import_module(own).REPLAYS if find_spec(own) else {})
    if golden.kind not in rules:
        raise ValueError(
            f"no rule replays '{golden.kind}' of family '{golden.family}' with {sorted(golden.io)}"
        )
    return rules[golden.kind](golden)
