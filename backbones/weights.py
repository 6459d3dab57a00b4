"""Small trained weights: half precision on disk, float32 in memory, named by the hash of their file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from backbones.checkpoints import CheckpointError, refusal
from backbones.headers import HEADER, stored_header
from pardec.files import write_whole
from pardec.hashing import file_sha256

ZOO = Path(__file__).parent / "zoo"


@dataclass(frozen=True)
class Weights:
    """What a weights file holds."""

    tensors: dict[str, Tensor]
    """Floating-point ones in float32, whatever their precision on disk."""
    config: dict[str, Any]
    sha256: str
    """Of the whole file."""


def save_half(module: nn.Module, path: Path, config: Mapping[str, Any]) -> str:
    """Write a module's state in half precision, whole or not at all, and return the file's sha256.

    ``config`` is what is needed to build the module again; it goes into the header as JSON.
    """
    tensors = {name: _half(tensor).contiguous().cpu() for name, tensor in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    # One header entry: the order of several is not fixed, and the file's hash is its name.
    content = save(tensors, metadata={HEADER: json.dumps(dict(config), sort_keys=True)})
    write_whole(path, lambda file: file.write(content))
    return file_sha256(path)


def as_stored(tensor: Tensor) -> Tensor:
    """A tensor as ``save_half`` and ``load_half`` give it back."""
    half = _half(tensor)
    return half.float() if half.is_floating_point() else half


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def load_half(path: Path) -> Weights:
    """Read what ``save_half`` wrote.

    Raises:
        CheckpointError: the file is missing, truncated, or was written by something else.
    """
    config = read_header(path)
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    whole = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    return Weights(whole, config, file_sha256(path))


def read_header(path: Path) -> dict[str, Any]:
    """The ``config`` in what ``save_half`` wrote, its tensors unread; errors as ``load_half``."""
    reason = refusal(path)
    if reason is not None:
        raise CheckpointError(f"weights file '{path}': {reason}")
    try:
        return stored_header(path)
    except ValueError as error:
        raise CheckpointError(f"weights file '{path}' {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"weights file '{path}' is not a whole safetensors file: {error}") from error


def load_into(module: nn.Module, weights: Weights, path: Path) -> None:
    """Fill a module strictly, then freeze it and put it in evaluation mode."""
    try:
        module.load_state_dict(weights.tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"weights file '{path}': {' '.join(str(error).split())}") from error
    module.requires_grad_(False).eval()


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Write the card of a weights file as JSON, whole or not at all."""
    write_whole(path, lambda file: file.write(json.dumps(card, indent=1).encode() + b"\n"))
