"""Arrays of npz files from anywhere: no code runs, and no small file unpacks to more than memory holds.

``numpy.load`` believes a header before it looks at what follows, and a deflated member may unpack to a
thousand times its size. So headers are held against the archive's own sizes first.
"""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pardec.errors import UserError, one_line
from pardec.file_forms import mistaken

UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What the readers of damaged archives and arrays raise."""
UNSUSPECTED_BYTES = 1 << 28
LARGEST_EXPANSION = 100
"""A file of more than ``UNSUSPECTED_BYTES`` once unpacked may not be over so many times its own size."""


class ArraysError(UserError):
    """A file that is missing, damaged or not to be trusted; ``reason`` says so without its name."""

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(f"'{path}' can't be read as an npz of arrays: {reason}")


@dataclass(frozen=True)
class Header:
    """Type and shape of an array that has not been read."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def array_headers(path: Path) -> dict[str, Header]:
    """Name -> header of every array of an npz; raises ArraysError."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _header(archive, f"{name}.npy") for name in _names(archive)}
    except UNREADABLE as error:
        raise _mistake(path, error) from None


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays ``names`` (None: all), of those that an npz has; errors as ``array_headers``."""
    try:
        with zipfile.ZipFile(path) as archive:
            held = _names(archive)
            chosen = [name for name in (held if names is None else names) if name in held]
            _check_expansion(archive, chosen, path.stat().st_size)
            return {name: _array(archive, f"{name}.npy") for name in chosen}
    except UNREADABLE as error:
        raise _mistake(path, error) from None


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _check_expansion(archive: zipfile.ZipFile, names: Iterable[str], size: int) -> None:
    unpacked = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
    if unpacked > max(UNSUSPECTED_BYTES, LARGEST_EXPANSION * size):
        raise ValueError(f"{unpacked:,} bytes of arrays in {size:,} bytes of file")


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    with archive.open(name) as member:
        version = npy.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} has format {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(member)
        left = archive.getinfo(name).file_size - member.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects, which only code could make")
    if any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"{name} has shape {shape}")
    if math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{name} of shape {list(shape)} is followed by {left:,} bytes")
    return Header(dtype, shape)


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    _header(archive, name)
    with archive.open(name) as member:
        return np.asarray(npy.read_array(member, allow_pickle=False))


def _mistake(path: Path, error: Exception) -> ArraysError:
    if isinstance(error, FileNotFoundError):
        return ArraysError(path, "no such file")
    if isinstance(error, OSError) and error.strerror:
        return ArraysError(path, error.strerror)
    if isinstance(error, zipfile.BadZipFile) and (reason := mistaken(path, "zip")):
        return ArraysError(path, reason)
    return ArraysError(path, one_line(error)[:200] or type(error).__name__)
