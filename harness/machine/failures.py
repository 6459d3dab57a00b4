"""What an exception says about a cell: its status and its cause on one line."""

import errno
import os
from typing import Literal

from pardec.errors import one_line
from pardec.files import OUT_OF_ROOM

_SHORT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "memoryerror",
)
_REASON_LENGTH = 500


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, CUDA's, or the CPU allocator's, which raises RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    """Whether a message is one of those that libraries give when memory runs out."""
    return any(words in text.lower() for words in _SHORT_OF_MEMORY)


def says_disk_full(text: str) -> bool:
    """Whether a message is the system's for a disk without room, or one that can't be written at all."""
    return any(os.strerror(number) in text for number in (*OUT_OF_ROOM, errno.EROFS))


def classify(error: BaseException) -> tuple[Literal["oom", "invalid", "error"], str]:
    """Status and one-line cause of a cell that raised."""
    text = one_line(error)
    cause = f"{type(error).__name__}: {text}"[:_REASON_LENGTH] if text else type(error).__name__
    if is_out_of_memory(error):
        return "oom", cause
    if isinstance(error, FloatingPointError):
        return "invalid", cause
    return "error", cause
