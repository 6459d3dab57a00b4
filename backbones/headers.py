"""What weights of ours say of themselves, read without torch."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

HEADER = "pardec"


def stored_header(path: Path) -> dict[str, Any]:
    """The ``config`` in what ``weights.save_half`` wrote, its tensors unread; ValueError for another file."""
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"is not a whole safetensors file: {error}") from error
    if HEADER not in header:
        raise ValueError(f"has no '{HEADER}' entry in its header")
    try:
        config = json.loads(header[HEADER])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"has a '{HEADER}' entry that is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"has a '{HEADER}' entry that is no JSON object")
    return config
