"""Which files of a folder are its images: one enumeration for whoever reads, hashes or lists them.

What is there but can't be reached (a folder without permission, a link that leads nowhere) is an error: left
out in silence, it would change what a number is of.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pardec.errors import UserError
from pardec.hashing import file_sha256

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
CLEAN_SUFFIXES = (
    "bmp",
    "jpg",
    "jpeg",
    "pgm",
    "png",
    "ppm",
    "tif",
    "tiff",
    "webp",
    "npy",
    "JPEG",
    "JPG",
    "PNG",
)
"""clean-fid's, in which capitals count; written out because the library takes seconds to import."""


def class_folders(path: Path) -> list[tuple[str, list[Path]]]:
    """Classes of PATH/CLASS/image.png and their files, both in alphabetical order; UserError for none.

    Links are followed and hidden names passed over, both of folders and of files.
    """
    if not path.is_dir():
        raise UserError(f"image folder '{path}' does not exist or is not a folder")
    folders = [path / entry.name for entry in _entries(path) if _is_folder(entry)]
    if not folders:
        raise UserError(f"image folder '{path}' has no class folders; expected PATH/CLASS/image.png")
    return [(folder.name, _images(folder)) for folder in folders]


def _images(folder: Path) -> list[Path]:
    """Files of a folder with an image's suffix, by name."""
    named = (entry for entry in _entries(folder) if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES)
    return [folder / entry.name for entry in named if not _is_folder(entry) and entry.is_file()]


def clean_files(folder: Path) -> list[Path]:
    """The files that clean-fid reads of a folder and of those inside, in its order.

    Its glob follows links and passes over hidden names. It also passes over folders that can't be read, and
    takes a folder that contains itself forty times; both are a UserError here.
    """
    found = sorted(_clean_below(folder, ()), key=str)
    if len(found) < 2:
        raise UserError(f"{folder} holds {len(found)} images; a reference needs at least 2")
    return found


def _clean_below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    try:
        state = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from None
    own = (state.st_dev, state.st_ino)
    if own in above:
        raise UserError(f"folder '{folder}' is a link to a folder that it is in")
    for entry in _entries(folder):
        if _is_folder(entry):
            yield from _clean_below(folder / entry.name, (*above, own))
        elif entry.is_file() and Path(entry.name).suffix[1:] in CLEAN_SUFFIXES:
            yield folder / entry.name


def content_hash(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over names below ``root`` and contents of files."""
    digest = hashlib.sha256()
    for file in sorted(files):
        try:
            digest.update(_name_below(root, file) + b"\0" + file_sha256(file).encode() + b"\n")
        except OSError as error:
            raise UserError(f"image '{file}' can't be read: {error.strerror or error}") from None
    return digest.hexdigest()


def listing_hash(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over relative names and sizes in bytes."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(_name_below(root, file) + f"\0{file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _name_below(root: Path, file: Path) -> bytes:
    return os.fsencode(file.relative_to(root))  # a name need not be text


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without hidden names; UserError where it can't be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; UserError for a link that leads nowhere."""
    try:
        entry.stat()
        return entry.is_dir()
    except OSError as error:
        if entry.is_symlink():
            raise UserError(f"'{entry.path}' is a link that can't be followed: {error.strerror}") from None
        raise _unreadable(Path(entry.path), error) from None


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"'{path}' can't be read: {error.strerror or error}")
