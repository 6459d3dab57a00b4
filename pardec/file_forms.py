"""What a file is by its first bytes, whatever its name says, and the clause that says so to a reader."""

import os
import re
import stat
from pathlib import Path
from typing import Literal

from pardec.errors import visible

Form = Literal["safetensors", "zip", "pickle", "other"]

HEAD = 4096
"""Bytes by which a form is known."""
_LARGEST_HEADER = 100_000_000
"""Of a safetensors file, as the format says."""
_SHOWN = 60
_POINTERS = {
    b"version https://git-lfs.github.com/spec/": ("Git LFS", "git lfs pull"),
    b"# xet version": ("Git Xet", "git xet pull"),
    b"/annex/objects/": ("git-annex", "git annex get"),
}
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_OTHERS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"%PDF": "a PDF document",
    b"PAR1": "a Parquet table",
    b"\x7fELF": "a program",
}
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.I | re.S)


def unopenable(path: Path) -> str | None:
    """Why a path can't be opened as a file, as a clause for messages; None where it can."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _folder(path)
        if not stat.S_ISREG(mode):
            return "no regular file; expected one on disk"
        with path.open("rb"):
            return None
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            return f"no such file: it is a link to '{visible(os.readlink(path))}', which isn't there"
        return "no such file"
    except PermissionError:
        return "permission denied: make it readable for this user, or copy it to where it is"
    except OSError as error:
        return f"can't be opened: {error.strerror or error}"
    except ValueError:  # a name with a zero byte
        return "no such file"


def _folder(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    except OSError:
        names = []
    held = [visible(name) for name in names if not name.startswith(".")]
    more = f" and {len(held) - 3} more" if len(held) > 3 else ""
    return f"a folder; expected a file{f', e.g. one in it: {chr(44).join(held[:3])}{more}' if held else ''}"


def read_head(path: Path) -> bytes:
    """The first bytes of a file; raises OSError."""
    with path.open("rb") as file:
        return file.read(HEAD)


def form_of(head: bytes) -> Form:
    """Which reader of weights a file is for, by its first bytes."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if len(head) > 1 and head[0] == 0x80 and head[1] <= 5:
        return "pickle"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    return "other"


def mistaken(path: Path, *expected: Form) -> str | None:
    """Why a path is no file of the expected forms, as a clause for messages; None where it may be one."""
    reason = unopenable(path)
    if reason is not None:
        return reason
    try:
        head = read_head(path)
    except OSError as error:
        return f"can't be read: {error.strerror or error}"
    form = form_of(head)
    if form in expected:
        return None
    return foreign(head, path.stat().st_size) if form == "other" else f"a {form} file"


def foreign(head: bytes, size: int) -> str:
    """What a file of the form "other" is, and what to do, as a clause for messages."""
    if size == 0:
        return "empty (0 bytes), as a failed download leaves it: get it again"
    if not head.strip(b"\0"):
        return f"nothing but zeros ({size:,} bytes), as an unfinished download leaves it: get it again"
    for mark, (name, command) in _POINTERS.items():
        if head.startswith(mark):
            told = re.search(rb"^size (\d+)$", head, re.M)
            whole = f" of {int(told[1]):,} bytes" if told else ""
            return (
                f"a pointer of {name}, not the file itself{whole}: run '{command}' where it was cloned, or "
                "download the file"
            )
    if _PAGE.match(head):
        title = _TITLE.search(head)
        called = f' called "{_shown(title[1])}"' if title else ""
        return (
            f"a web page{called}, not the file behind it: download the file itself (its link may need a "
            "sign-in, or say 'resolve' instead of 'blob')"
        )
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it and name the file inside"
    for mark, name in _PACKED.items():
        if head.startswith(mark):
            return f"packed by {name}: unpack it and name the file inside"
    for mark, name in _OTHERS.items():
        if head.startswith(mark):
            return name
    text = _text(head)
    if text:
        return f'a text that begins "{text}"'
    if len(head) < 16:
        return f"truncated: {size} bytes"
    return f"of no known form: it begins with {head[:8].hex(' ')}"


def _text(head: bytes) -> str | None:
    """How a text begins; None for what is none."""
    decoded = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "ignore")
    if len(decoded.encode()) < len(head) - 6 or any(ord(c) < 32 and c not in "\t\n\r\f" for c in decoded):
        return None
    return _shown(decoded.encode())


def _shown(text: bytes) -> str:
    line = visible(" ".join(text.decode("utf-8", "replace").split()))
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
