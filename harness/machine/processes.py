"""Ends a worker with everything that it has started, also what left its process group."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

MARK = "PARDEC_WORKER"
"""Environment variable by whose value a worker's descendants are known, wherever they went."""
_ROUNDS = 20


def end_all(group: int, mark: str) -> None:
    """SIGKILL to a process group and to all other processes that carry ``mark``, but this one.

    Linux tells what environment a process was started with; elsewhere the group is all that is known.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for _ in range(_ROUNDS):  # one of them may have started another since it was looked for
        found = carriers(mark)
        if not found:
            return
        for process in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


def carriers(mark: str, name: str = MARK) -> list[int]:
    """The living processes, except this one, that were started with ``mark`` in their environment."""
    wanted = f"{name}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return [process for process in found if process != os.getpid()]


def guard_end_of_input() -> None:
    """Fork a process that ends this one's group and descendants at the end of standard input.

    It is no thread, because a cell that hangs in a library may never let another thread run; and it stands
    outside the group, because the kernel ends a worker with its parent before the worker can end its own
    children. To be called while there is one thread; standard input is empty afterwards.
    """
    worker = os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    os.closerange(1, os.sysconf("SC_OPEN_MAX"))
    while os.read(0, 4096):
        pass
    end_all(worker, os.environ.get(MARK, ""))
    os._exit(0)
