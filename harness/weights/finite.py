"""Weights that are NaN or infinite are found before they compute anything."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from torch import Tensor, nn

from backbones.weights import load_half
from pardec.errors import NotFinite


def check_finite(content: nn.Module | Mapping[str, Tensor], what: str) -> None:
    """NotFinite for the first weight that is no number; ``what`` names the network or file."""
    tensors = content.state_dict() if isinstance(content, nn.Module) else content
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise NotFinite(f"{what} '{name}' is NaN or infinite")


def is_finite(tensor: Tensor) -> bool:
    """Whether every element is a number."""
    if not tensor.numel() or not tensor.is_floating_point():
        return bool(tensor.isfinite().all())
    # NaN passes through to both ends; one pass without a copy is ten times as fast as a test of each element.
    return all(bool(end.isfinite()) for end in tensor.aminmax())


@lru_cache(maxsize=16)
def check_zoo_file(path: Path, sha256: str) -> None:
    """:func:`check_finite` of a file of the zoo, once for every content."""
    check_finite(load_half(path).tensors, f"'{path}': weight")
