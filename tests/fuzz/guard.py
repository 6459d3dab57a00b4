"""What no input may do, watched while it is read: harm outside its folder, run code, take time or memory.

Python's audit events tell of every file opened, every process begun and every class that a pickle asks for.
"""

import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from backbones.checkpoints import CheckpointError
from pardec.errors import UserError

MISTAKES = (UserError, CheckpointError)
"""What reading bad input may raise; the command line makes one line and exit status 2 of them."""
LONGEST_S = 30.0
"""Processor time for one input."""
MOST_BYTES = 1 << 30
"""Data that reading one input may ask for, over what the process holds."""
_RUNS = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.spawn", "os.posix_spawn", "pty.spawn")
_FORBIDDEN = (*_RUNS, "subprocess.Popen", "pickle.find_class", "socket.connect", "webbrowser.open")
_CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Harm(BaseException):
    """An input did what none may. No Exception, so that no reader takes it for a damaged file."""


@dataclass
class _Watch:
    folder: Path
    secret: Path | None


_watch: _Watch | None = None
_hooked = False


@contextmanager
def harmless(folder: Path, secret: Path | None = None, limited: bool = True) -> Iterator[None]:
    """Raises Harm where the block writes outside ``folder``, reads in ``secret``, starts a process or asks a
    pickle for a class, and, if ``limited``, where it takes longer than ``LONGEST_S`` or too much memory."""
    global _watch, _hooked
    if not _hooked:
        sys.addaudithook(_on_event)
        _hooked = True
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    before = _watch
    with _limits() if limited else _none():
        _watch = _Watch(folder.resolve(), None if secret is None else secret.resolve())
        try:
            yield
        finally:
            _watch = before
            sys.dont_write_bytecode = bytecode


@contextmanager
def one_mistake() -> Iterator[None]:
    """Ends quietly on what a user's mistake raises, and on nothing else; it must say something."""
    try:
        yield
    except MISTAKES as error:
        if not str(error).strip():
            raise Harm("a mistake without a word") from error


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    watch = _watch
    if watch is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes, os.PathLike)):
            place = _place(path)
            if watch.secret is not None and place.is_relative_to(watch.secret):
                raise Harm(f"read outside: {place}")
            if isinstance(flags, int) and flags & _WRITING:
                _check_change(watch, place)
    elif event in _FORBIDDEN:
        raise Harm(f"{event} {arguments!r:.300}")
    elif event in _CHANGES:
        for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
            if isinstance(path, (str, bytes, os.PathLike)):
                _check_change(watch, _place(path))


def _place(path: Any) -> Path:
    # abspath, not resolve: that would open files in turn.
    return Path(os.path.abspath(os.fsdecode(path)))


def _check_change(watch: _Watch, place: Path) -> None:
    if place != Path(os.devnull) and not place.is_relative_to(watch.folder):
        raise Harm(f"written outside: {place}")


@contextmanager
def _none() -> Iterator[None]:
    yield


@contextmanager
def _limits() -> Iterator[None]:
    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise Harm(f"longer than {LONGEST_S:g} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    handler = signal.signal(signal.SIGPROF, on_alarm)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MOST_BYTES, hard))
    try:
        yield
    except MemoryError as error:
        raise Harm(f"more than {MOST_BYTES:,} bytes") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Bytes of this process's data, as the limit counts them (VmData)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("no VmData in /proc/self/status")
