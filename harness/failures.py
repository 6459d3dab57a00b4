"""What an exception says about a cell: its status and its cause on one line."""

from typing import Literal

from strategies.decoding.errors import one_line

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


def classify(error: BaseException) -> tuple[Literal["oom", "invalid", "error"], str]:
    """Status and one-line cause of a cell that raised."""
    cause = f"{type(error).__name__}: {one_line(error)}"[:_REASON_LENGTH]
    if is_out_of_memory(error):
        return "oom", cause
    if isinstance(error, FloatingPointError):
        return "invalid", cause
    return "error", cause
