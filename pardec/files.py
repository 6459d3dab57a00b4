"""Files that are there whole or not at all, and what is left of writing them."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pardec.errors import UserError

OUT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT)
_PARTIAL = ".partial"


def path_of(text: str) -> Path:
    """The path that a user wrote: ``~`` and ``~NAME`` at its start are home folders, as shells have it.

    That of an unknown user stays as it is, and so does ``./~``.
    """
    try:
        return Path(text).expanduser() if text.startswith("~") else Path(text)
    except RuntimeError:
        return Path(text)


def spec_of(text: str) -> str:
    """``KIND:PATH`` with the path as ``path_of`` reads it; another text as it is."""
    kind, colon, path = text.partition(":")
    return f"{kind}:{path_of(path)}" if colon and path.startswith("~") else text


def read_text(path: Path) -> str:
    """The text of a file, UTF-8 whatever the locale says, with or without a byte order mark.

    Raises OSError, and ValueError where it is no UTF-8.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"byte 0x{content[error.start]:02x} in line {line} is no UTF-8: store the text as UTF-8"
        ) from None


def write_whole(path: Path, fill: Callable[[BinaryIO], Any]) -> None:
    """Write beside ``path``, flush to the disk, take its name; OSError leaves what was there before.

    A killed process leaves a file that ``remove_partials`` finds.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with partial.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """A new name is on disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path, name: str = "*", deep: bool = False) -> None:
    """Remove what killed writers of files called ``name`` left; ``deep``: in the folders inside, too.

    Only where no writer can be at work.
    """
    pattern = f".{name}.*{_PARTIAL}"
    for left_over in list(folder.rglob(pattern) if deep else folder.glob(pattern)):
        left_over.unlink(missing_ok=True)


@contextmanager
def writing_results(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the OSErrors of writing in a results folder into UserErrors of one line."""
    try:
        yield
    except OSError as error:
        hint = ""
        if error.errno in OUT_OF_ROOM:
            hint = "; the rows in it are whole: make room and start again to go on"
        raise UserError(
            f"results folder '{folder}' can't be written: {error.strerror or error}{hint}"
        ) from None
