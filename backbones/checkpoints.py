"""Published checkpoint files in, our modules out: strictly, and never running code from a file."""

import os
import pickle
import re
import struct
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Mapping, Sequence
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
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
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


@dataclass(frozen=True)
class Part:
    """A published tensor of ``shape`` that fills our parameter from row ``start`` on."""

    key: str
    start: int
    shape: tuple[int, ...]


def parts_of(name: str, shape: Sequence[int], keys: KeyMap) -> list[Part]:
    """The published tensors that make up our parameter ``name`` of this shape, in their order."""
    sources = keys.sources(name)
    fixed = sum(source.rows for source in sources if isinstance(source, Rows))
    equal = sum(isinstance(source, str) for source in sources)
    parts: list[Part] = []
    start = 0
    for source in sources:
        key = source.key if isinstance(source, Rows) else source
        rows = source.rows if isinstance(source, Rows) else (shape[0] - fixed) // equal
        parts.append(Part(key, start, (rows, *shape[1:])))
        start += rows
    return parts


_PLACEHOLDERS = {"i": r"\d+", "rest": ".+"}


def _filled(part: str | Rows, values: Mapping[str, str]) -> str | Rows:
    if isinstance(part, Rows):
        return Rows(part.key.format(**values), part.rows)
    return part.format(**values)


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by published key, and what stood around them."""

    tensors: dict[str, Tensor]
    form: str
    """safetensors, torch archive, or torch legacy file."""
    wrapper: tuple[str, ...]
    """Keys of the tables around the state dict, outermost first."""
    prefix: str
    """What training put before every key."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pt, .pth or .bin file, unwrapped, without training prefixes.

    Raises CheckpointError for a missing, truncated or foreign file, and for a pickle that would run code.
    """
    return read_checkpoint(path).tensors


def read_checkpoint(path: Path, with_values: bool = True) -> Checkpoint:
    """A file's state dict with its wrapper and prefix; errors as ``read_state_dict``.

    Archives and safetensors files are mapped into memory, so that what isn't used is never read.
    with_values: without them legacy files aren't read either; shapes and types are right, values undefined.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        content: object
        if path.suffix == ".safetensors":
            form, content = "safetensors", load_file(path)
        else:
            # Training scripts store their command line beside the weights: attributes, no code.
            with torch.serialization.safe_globals([Namespace]):
                form, content = _read_torch(path, with_values)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        if foreign:
            raise CheckpointError(
                f"{path}: refused, the pickle wants to run '{foreign.group(1)}'; expected plain tensors"
            ) from error
        raise CheckpointError(f"{path}: truncated or not a checkpoint file: broken pickle") from error
    except UNREADABLE as error:
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise CheckpointError(f"{path}: truncated or not a checkpoint file: {reason}") from error
    state, wrapper = _unwrapped(content, path)
    tensors, prefix = _stripped(state)
    return Checkpoint(tensors, form, wrapper, prefix)


def _read_torch(path: Path, with_values: bool) -> tuple[str, object]:
    if zipfile.is_zipfile(path):
        return "torch archive", torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if with_values:
        return "torch legacy file", torch.load(path, map_location="cpu", weights_only=True)
    with path.open("rb") as file, torch.serialization.skip_data():
        content = torch.load(file, map_location="cpu", weights_only=True)
        held = os.fstat(file.fileno()).st_size - file.tell()
    # Each storage follows the pickles as its length in 8 bytes and its values.
    needed = sum(8 + size for size in _storages(content).values())
    if held < needed:
        raise EOFError(f"{held:,} bytes of tensors, expected {needed:,}")
    return "torch legacy file", content


def _storages(content: object) -> dict[int, int]:
    """Address and bytes of every storage behind the tensors of a nested content."""
    found: dict[int, int] = {}
    if isinstance(content, Tensor):
        found[content.untyped_storage()._cdata] = content.untyped_storage().nbytes()
    elif isinstance(content, Mapping):
        for value in content.values():
            found |= _storages(value)
    elif isinstance(content, list | tuple):
        for value in content:
            found |= _storages(value)
    return found


def _unwrapped(content: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    passed: list[str] = []
    while isinstance(content, Mapping):
        if _is_state_dict(content):
            return dict(content), tuple(passed)
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        passed.append(wrapper)
        content = content[wrapper]
    under = _state_dict_under(content)
    found = f"; tensors stand under '{'.'.join((*passed, *under))}'" if under else ""
    raise CheckpointError(
        f"{path}: no state dict found; expected tensors by name, bare or under {', '.join(WRAPPERS)}{found}"
    )


def _is_state_dict(content: object) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _state_dict_under(content: object) -> tuple[str, ...]:
    """Keys on the way to the first state dict inside, for messages; empty where there is none."""
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if _is_state_dict(value):
            return (str(key),)
        below = _state_dict_under(value)
        if below:
            return (str(key), *below)
    return ()


def _stripped(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    removed = ""
    for prefix in PREFIXES * 2:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            removed += prefix
    return state, removed


def load_published(network: nn.Module, state: Mapping[str, Tensor], keys: KeyMap, source: str) -> None:
    """Fill a network from a published state dict, strictly.

    ``source`` names the file in errors. Raises CheckpointError at the first missing key, wrong shape or
    key that belongs to nothing.
    """
    used: set[str] = set()
    for name, parameter in network.state_dict().items():
        for part in parts_of(name, parameter.shape, keys):
            tensor = state.get(part.key)
            if tensor is None:
                raise CheckpointError(f"{source}: key '{part.key}' is missing; expected shape {part.shape}")
            if tuple(tensor.shape) != part.shape:
                raise CheckpointError(
                    f"{source}: key '{part.key}' has shape {tuple(tensor.shape)}; expected {part.shape}"
                )
            if not tensor.is_floating_point():
                raise CheckpointError(
                    f"{source}: key '{part.key}' has type {tensor.dtype}; expected a float type"
                )
            with torch.no_grad():
                parameter[part.start : part.start + part.shape[0]].copy_(tensor)
            used.add(part.key)
    extra = [key for key in state if key not in used and not ignored(key, keys)]
    if extra:
        raise CheckpointError(f"{source}: key '{extra[0]}' belongs to nothing ({len(extra)} extra in all)")


def ignored(key: str, keys: KeyMap) -> bool:
    """Whether a published key carries nothing."""
    return any(re.fullmatch(pattern, key) for pattern in keys.ignored)
