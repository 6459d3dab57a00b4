"""Image tokenizers: one file each, and the loader of the small ones that the suite trains."""

from pathlib import Path
from typing import Any

import torch

from backbones.checkpoints import CheckpointError
from backbones.tokenizers.base import Tokenizer
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer
from backbones.weights import ZOO, load_half, load_into

__all__ = ["Tokenizer", "load_tokenizer"]


def load_tokenizer(path: Path | None = None) -> Tokenizer:
    """The frozen tokenizer stored at ``path``, by default the zoo's, in float32 and evaluation mode.

    Raises:
        CheckpointError: the file is missing, truncated, or holds something else.
    """
    path = path or ZOO / "tokenizer.safetensors"
    weights = load_half(path)
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in weights.config.items()}
    kind = options.pop("kind", None)
    if kind != "fsq":
        raise CheckpointError(f"weights file '{path}' holds '{kind}', not a tokenizer of kind 'fsq'")
    with torch.random.fork_rng(devices=[]):  # the first values, soon replaced, are drawn at random
        tokenizer = _built(options, path)
    load_into(tokenizer, weights, path)
    return tokenizer.to(memory_format=torch.channels_last)  # a third faster on a CPU


def _built(options: dict[str, Any], path: Path) -> FSQTokenizer:
    try:
        return FSQTokenizer(FSQConfig(**options))
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"weights file '{path}' describes no tokenizer: {error}") from None
