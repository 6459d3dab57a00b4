"""Published checkpoint files in, our modules out: strictly, and never running code from a file."""

import pickle
import re
import struct
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

WRAPPERS = ("model", "module", "state_dict")
PREFIXES = ("_orig_mod.", "module.")
UNREADABLE = (
    SafetensorError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    struct.error,
)
"""What readers of damaged files raise."""


class CheckpointError(Exception):
    """A file that cannot be loaded, in one line: file, key, expectation."""


@dataclass(frozen=True)
class Rows:
    """A published tensor that fills a stated number of rows of ours."""

    key: str
    rows: int


@dataclass(frozen=True)
class KeyMap:
    """Our parameter names onto the published ones; ``{i}`` stands for a layer index, ``{rest}`` for the end
    of a name. The first entry that fits counts.

    A tuple of names is stacked along the first axis: equal parts, but for ``Rows``. ``ignored`` are
    published keys (regular expressions) that carry nothing.
    """

    names: Mapping[str, str | tuple[str | Rows, ...]]
    ignored: tuple[str, ...] = ()

    def sources(self, ours: str) -> tuple[str | Rows, ...]:
        """Published tensors that make up our parameter."""
        for pattern, published in self.names.items():
            expression = re.escape(pattern)
            for placeholder, values in _PLACEHOLDERS.items():
                expression = expression.replace(rf"\{{{placeholder}\}}", rf"(?P<{placeholder}>{values})")
            match = re.fullmatch(expression, ours)
            if match:
                parts = (published,) if isinstance(published, str) else published
                return tuple(_filled(part, match.groupdict()) for part in parts)
        raise KeyError(f"the key map has no entry for '{ours}'")


_PLACEHOLDERS = {"i": r"\d+", "rest": ".+"}


def _filled(part: str | Rows, values: Mapping[str, str]) -> str | Rows:
    if isinstance(part, Rows):
        return Rows(part.key.format(**values), part.rows)
    return part.format(**values)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pt, .pth or .bin file, unwrapped, without training prefixes.

    Raises CheckpointError for a missing, truncated or foreign file, and for a pickle that would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            # Training scripts store their command line beside the weights: attributes, no code.
            with torch.serialization.safe_globals([Namespace]):
                is_archive = zipfile.is_zipfile(path)
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        if foreign:
            raise CheckpointError(
                f"{path}: refused, the pickle wants to run '{foreign.group(1)}'; expected plain tensors"
            ) from error
        raise CheckpointError(f"{path}: truncated or not a checkpoint file: broken pickle") from error
    except UNREADABLE as error:
        reason = str(error).split("\n")[0][:120]
        raise CheckpointError(f"{path}: truncated or not a checkpoint file: {reason}") from error
    return _stripped(_unwrapped(content, path))


def _unwrapped(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        named = all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
        if content and named:
            return dict(content)
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    raise CheckpointError(
        f"{path}: no state dict found; expected tensors by name, bare or under {', '.join(WRAPPERS)}"
    )


def _stripped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def load_published(network: nn.Module, state: Mapping[str, Tensor], keys: KeyMap, source: str) -> None:
    """Fill a network from a published state dict, strictly.

    ``source`` names the file in errors. Raises CheckpointError at the first missing key, wrong shape or
    key that belongs to nothing.
    """
    used: set[str] = set()
    for name, parameter in network.state_dict().items():
        parts = keys.sources(name)
        fixed = sum(part.rows for part in parts if isinstance(part, Rows))
        equal = sum(isinstance(part, str) for part in parts)
        start = 0
        for part in parts:
            key = part.key if isinstance(part, Rows) else part
            rows = part.rows if isinstance(part, Rows) else (parameter.shape[0] - fixed) // equal
            tensor = state.get(key)
            expected = (rows, *parameter.shape[1:])
            if tensor is None:
                raise CheckpointError(f"{source}: key '{key}' is missing; expected shape {expected}")
            if tuple(tensor.shape) != expected:
                raise CheckpointError(
                    f"{source}: key '{key}' has shape {tuple(tensor.shape)}; expected {expected}"
                )
            if not tensor.is_floating_point():
                raise CheckpointError(f"{source}: key '{key}' has type {tensor.dtype}; expected a float type")
            with torch.no_grad():
                parameter[start : start + rows].copy_(tensor)
            start += rows
            used.add(key)
    extra = [key for key in state if key not in used and not _ignored(key, keys)]
    if extra:
        raise CheckpointError(f"{source}: key '{extra[0]}' belongs to nothing ({len(extra)} extra in all)")


def _ignored(key: str, keys: KeyMap) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in keys.ignored)
