"""Published checkpoint files in, our modules out: strictly, and never running code from a file."""

import logging
import os
import pickle
import re
import struct
import tempfile
import warnings
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backbones.state_dicts import BARE, NoChoice, choose
from pardec.errors import visible
from pardec.file_forms import Form, form_of, mistaken, read_head, unopenable

_LOG = logging.getLogger(__name__)
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
class KeyRows:
    """A published tensor that fills a stated number of rows of ours."""

    key: str
    rows: int


@dataclass(frozen=True)
class KeyMap:
    """Our parameter names onto the published ones; ``{i}`` stands for a layer index, ``{rest}`` for the end
    of a name. The first entry that fits counts.

    A tuple of names is stacked along the first axis: equal parts, but for ``KeyRows``. ``ignored`` are
    published keys (regular expressions) that carry nothing, ``tied`` those that repeat another's tensor,
    ``computed`` buffers (regular expressions) that a file may hold and our network says the values of.
    """

    names: Mapping[str, str | tuple[str | KeyRows, ...]]
    ignored: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, Callable[[Any], Tensor]] = field(default_factory=dict)

    def sources(self, ours: str) -> tuple[str | KeyRows, ...]:
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
    fixed = sum(source.rows for source in sources if isinstance(source, KeyRows))
    equal = sum(isinstance(source, str) for source in sources)
    parts: list[Part] = []
    start = 0
    for source in sources:
        key = source.key if isinstance(source, KeyRows) else source
        rows = source.rows if isinstance(source, KeyRows) else (shape[0] - fixed) // equal
        parts.append(Part(key, start, (rows, *shape[1:])))
        start += rows
    return parts


_PLACEHOLDERS = {"i": r"\d+", "rest": ".+"}


def _filled(part: str | KeyRows, values: Mapping[str, str]) -> str | KeyRows:
    if isinstance(part, KeyRows):
        return KeyRows(part.key.format(**values), part.rows)
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
    """What training put before or within the keys."""
    others: Mapping[str, bool | None] = field(default_factory=dict)
    """Other states of the same network in the file -> whether their values are equal; None: not read."""

    @property
    def taken(self) -> str | None:
        """The name of these weights among those in the file; None where they are all that it holds."""
        return ".".join(self.wrapper) or (BARE if self.others else None)

    @property
    def choice(self) -> str | None:
        """That the file holds other states of the network, and how to choose one; None where it doesn't."""
        if not self.others:
            return None
        states = {True: "the same", False: "other values", None: "values not compared"}
        named = ", ".join(f"'{name}' ({states[same]})" for name, same in self.others.items())
        example = next((name for name, same in self.others.items() if same is not True), None)
        how = "leave --weights out to take it" if example == BARE else f"--weights {example} chooses"
        hint = f"; {how}" if example else ""
        return f"'{self.taken}' of '{self.taken}', {named}{hint}"


def read_state_dict(path: Path, weights: str | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors or torch file, unwrapped, without training prefixes.

    weights: which of several state dicts, by its keys joined by dots. Raises CheckpointError for a missing,
    truncated or foreign file, and for a pickle that would run code.
    """
    found = read_checkpoint(path, weights=weights)
    if weights is None:
        tell_choice(found, path)
    return found.tensors


def tell_choice(found: Checkpoint, path: Path) -> None:
    """Log that unasked one of several states of the network was taken, where they differ."""
    if any(same is not True for same in found.others.values()):
        _LOG.warning("%s: weights taken: %s", path, found.choice)


def read_checkpoint(path: Path, with_values: bool = True, weights: str | None = None) -> Checkpoint:
    """A file's state dict with its wrapper and prefix; arguments and errors as ``read_state_dict``.

    The first bytes tell the form, whatever the file is called. Archives and safetensors files are mapped into
    memory, so that what isn't used is never read.
    with_values: without them legacy files aren't read either; shapes and types are right, values undefined.
    """
    path = Path(path)
    reason = refusal(path)
    if reason is not None:
        raise CheckpointError(f"{path}: {reason}")
    form = FORMS[form_of(read_head(path))]
    try:
        content: object
        if form == "safetensors":
            content = load_file(path)
        else:
            # Training scripts store their command line beside the weights: attributes, no code.
            with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of pickle protocols that it reads all the same
                content = _read_torch(path, form, with_values)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: {_unpickled(error, form)}") from error
    except UNREADABLE as error:
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise CheckpointError(f"{path}: truncated or damaged {form}: {reason}") from error
    try:
        chosen = choose(content, weights, with_values or form != "torch legacy file")
    except NoChoice as error:
        raise CheckpointError(f"{path}: {error}") from None
    return Checkpoint(chosen.state, form, chosen.path, chosen.prefix, chosen.others)


_LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19"
"""The number with which torch's files from before archives open."""
_PLAIN = "plain tensors, as torch.save(model.state_dict(), FILE) writes them"
FORMS: dict[Form, str] = {"safetensors": "safetensors", "zip": "torch archive", "pickle": "torch legacy file"}


def refusal(path: Path) -> str | None:
    """Why a path can't be a file of weights, as far as its first bytes tell; None where it may be one."""
    reason = unopenable(path)
    if reason is not None:
        return reason
    reason = mistaken(path, *FORMS)
    if reason is not None:
        return f"not a checkpoint file: {reason}"
    head = read_head(path)
    form = form_of(head)
    if form == "pickle" and not (_LEGACY in head[:64] or _LEGACY[: len(head) - 4] == head[4:]):
        return f"not a checkpoint file: a plain pickle; expected {_PLAIN}"
    return _no_torch_archive(path) if form == "zip" else None


def _no_torch_archive(path: Path) -> str | None:
    """Why a zip archive holds no weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, LookupError, struct.error):
        return "truncated or damaged torch archive: the directory at its end is missing; get it again"
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        return f"not a checkpoint file: a TorchScript program; expected {_PLAIN}"
    if "data.pkl" in ends:
        return None
    if any(name.endswith(".npy") for name in names):
        return "not a checkpoint file: NumPy arrays (.npz)"
    held = visible(names[0])[:60] if len(names) == 1 else f"{len(names)} files"
    return f"not a checkpoint file: a zip archive of {held}; unpack it and name the file inside"


def _unpickled(error: pickle.UnpicklingError, form: str) -> str:
    """Why a pickle was refused."""
    foreign_name = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    if foreign_name:
        return f"refused, the pickle wants to run '{foreign_name.group(1)}'; expected plain tensors"
    return f"truncated or damaged {form}: broken pickle"


def _read_torch(path: Path, form: str, with_values: bool) -> object:
    if form == "torch archive" and not path.name.endswith(".safetensors"):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if form == "torch archive":
        # torch chooses its reader by the name's end, and maps only what has a name.
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / "weights.pt"
            link.symlink_to(path.absolute())
            return torch.load(link, map_location="cpu", weights_only=True, mmap=True)
    if with_values:
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    with path.open("rb") as file, torch.serialization.skip_data():
        content = torch.load(file, map_location="cpu", weights_only=True)
        held = os.fstat(file.fileno()).st_size - file.tell()
    # Each storage follows the pickles as its length in 8 bytes and its values.
    needed = sum(8 + size for size in _storages(content).values())
    if held < needed:
        raise EOFError(f"{held:,} bytes of tensors, expected {needed:,}")
    return content


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


def needed(network: nn.Module, keys: KeyMap) -> list[tuple[Tensor | None, Part]]:
    """Every published tensor that a network needs, with the parameter it fills; None where it is tied."""
    found: list[tuple[Tensor | None, Part]] = [
        (parameter, part)
        for name, parameter in network.state_dict().items()
        for part in parts_of(name, parameter.shape, keys)
    ]
    shapes = {part.key: part.shape for _, part in found}
    return found + [(None, Part(key, 0, shapes[original])) for key, original in keys.tied.items()]


def load_published(network: nn.Module, state: Mapping[str, Tensor], keys: KeyMap, source: str) -> None:
    """Fill a network from a published state dict, strictly.

    ``source`` names the file in errors. Raises CheckpointError at the first missing key, wrong shape, tied
    tensor with values of its own, buffer of other values than the network's or key that belongs to nothing.
    """
    used: set[str] = set()
    for parameter, part in needed(network, keys):
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
        if parameter is not None:
            with torch.no_grad():
                parameter[part.start : part.start + part.shape[0]].copy_(tensor)
        elif not torch.equal(tensor, state[keys.tied[part.key]]):
            raise CheckpointError(f"{source}: key '{part.key}' is not equal to '{keys.tied[part.key]}'")
        used.add(part.key)
    _compare_computed(network, state, keys, source)
    extra = [key for key in state if key not in used and not ignored(key, keys)]
    if extra:
        raise CheckpointError(f"{source}: key '{extra[0]}' belongs to nothing ({len(extra)} extra in all)")


def _compare_computed(network: nn.Module, state: Mapping[str, Tensor], keys: KeyMap, source: str) -> None:
    for pattern, value in keys.computed.items():
        for key in [key for key in state if re.fullmatch(pattern, key)]:
            expected = value(network)
            if not torch.equal(state[key].to(expected), expected):
                raise CheckpointError(f"{source}: key '{key}' is not what follows from the network")


def ignored(key: str, keys: KeyMap) -> bool:
    """Whether a published key carries nothing that a network takes from it."""
    return any(re.fullmatch(pattern, key) for pattern in (*keys.ignored, *keys.computed))
