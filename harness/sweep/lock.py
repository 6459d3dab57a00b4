"""One sweep at a time in a folder of results."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pardec.errors import UserError
from results.store import ResultStore

LOCK = ".sweep.lock"
"""In a folder of results, held by the sweep that runs in it."""


@contextmanager
def only_sweep_in(store: ResultStore) -> Iterator[None]:
    """Hold the folder's lock; the kernel drops it with the process."""
    with store.writing():
        descriptor = os.open(store.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another sweep is running in '{store.folder}': wait for it, or choose another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)
