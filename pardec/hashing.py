"""SHA-256 of files and texts: by what a result, a file or a setting is known again."""

import hashlib
from functools import lru_cache
from pathlib import Path

DIGITS = 16
"""Hexadecimal digits by which keys name things."""


def file_sha256(path: Path) -> str:
    """Of a file's content, hexadecimal; read once per process as long as the file doesn't change."""
    state = path.stat()
    return _file_sha256(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=256)
def _file_sha256(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_key(text: str, digits: int = DIGITS) -> str:
    """The first digits of a text's hash: what equal texts share, and others hardly ever."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
