"""Image tokenizers: one file each, and the loader of the small ones that the suite trains."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from backbones.checkpoints import CheckpointError
from backbones.tokenizers.base import Tokenizer
from backbones.tokenizers.fsq import FSQConfig, FSQTokenizer
from backbones.tokenizers.multiscale import MultiScaleConfig, MultiScaleTokenizer
from backbones.weights import ZOO, load_half, load_into

__all__ = ["Tokenizer", "load_tokenizer"]

KINDS: dict[str, Callable[..., Tokenizer]] = {
    "fsq": lambda **options: FSQTokenizer(FSQConfig(**options)),
    "multiscale": lambda **options: MultiScaleTokenizer(MultiScaleConfig(**options)),
}
"""What the header of a weights file calls them."""


def load_tokenizer(path: Path | None = None) -> Tokenizer:
    """The frozen tokenizer stored at ``path``, by default the zoo's, in float32 and evaluation mode.

    Raises:
        CheckpointError: the file is missing, truncated, or holds something else.
    """
    path = path or ZOO / "tokenizer.safetensors"
    weights = load_half(path)
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in weights.config.items()}
    kind = options.pop("kind", None)
    if kind not in KINDS:
        kinds = " or ".join(f"'{name}'" for name in KINDS)
        raise CheckpointError(f"weights file '{path}' holds '{kind}', not a tokenizer of kind {kinds}")
    with torch.random.fork_rng(devices=[]):  # the first values, soon replaced, are drawn at random
        tokenizer = _built(KINDS[kind], options, path)
    load_into(tokenizer, weights, path)
    return tokenizer.to(memory_format=torch.channels_last)  # a third faster on a CPU


def _built(make: Callable[..., Tokenizer], options: dict[str, Any], path: Path) -> Tokenizer:
    try:
        return make(**options)
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"weights file '{path}' describes no tokenizer: {error}") from None
