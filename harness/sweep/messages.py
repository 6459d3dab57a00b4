"""What a worker says on its pipe: JSON lines, progress and then a status; read as what a stranger sent."""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, get_args

from results.schema import Status

_LONGEST_LINE = 1 << 28
_LONGEST_WAIT_S = 3600.0
"""A selector takes no more than 24 days at once."""


class Channel:
    """JSON lines to the parent."""

    def __init__(self, pipe: BinaryIO) -> None:
        self.pipe = pipe

    def send(self, **message: Any) -> None:
        self.pipe.write(json.dumps(message, allow_nan=False).encode() + b"\n")
        self.pipe.flush()

    def progress(self, share: float, doing: str) -> None:
        self.send(share=share, doing=doing)


def messages(reading: int, worker: subprocess.Popen[bytes], deadline: float) -> Iterator[dict[str, Any]]:
    """The worker's lines until the end of the pipe or of the worker, whose children may hold the pipe open.

    TimeoutError after the deadline, Garbled for a line that is no message, OSError where the system doesn't
    let the worker be watched.
    """
    pending = b""
    with selectors.DefaultSelector() as selector, _noticing_the_end_of(worker, selector):
        selector.register(reading, selectors.EVENT_READ)
        while (left_s := deadline - time.monotonic()) > 0:
            ready = {key.fd for key, _ in selector.select(min(left_s, _LONGEST_WAIT_S))}
            if reading not in ready:
                if ready:
                    return
                continue
            chunk = os.read(reading, 65536)
            if not chunk:
                return
            *lines, pending = (pending + chunk).split(b"\n")
            yield from map(_message, lines)
            if len(pending) > _LONGEST_LINE:
                raise Garbled(pending)
    raise TimeoutError


@contextmanager
def _noticing_the_end_of(worker: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> Iterator[None]:
    """Wake the selector when the worker ends, where the system has descriptors of processes."""
    if sys.platform != "linux":
        yield
        return
    descriptor = os.pidfd_open(worker.pid)
    try:
        selector.register(descriptor, selectors.EVENT_READ)
        yield
    finally:
        os.close(descriptor)


class Garbled(ValueError):
    """What a worker wrote to the pipe is no message."""

    def __init__(self, line: bytes) -> None:
        super().__init__(f"the worker wrote what is no message to its pipe: {line[:60]!r}")


def _message(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise Garbled(line) from None
    if not isinstance(message, dict) or not isinstance(message.get("measured", {}), dict):
        raise Garbled(line)
    if "status" in message:
        status, reason = message["status"], message.get("reason", 0)
        sound = status in get_args(Status) and (reason is None if status == "ok" else bool(reason))
        sound = sound and isinstance(reason, str | None)
    else:
        share, doing = message.get("share"), message.get("doing")
        sound = isinstance(share, int | float) and isinstance(doing, str)
    if not sound:
        raise Garbled(line)
    return message
