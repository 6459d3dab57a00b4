"""The process that measures one cell: ``start_worker.py FD PARENT``, started by ``process``.

It reads one JSON line from its standard input, a cell to measure or cells to time in turn, and writes JSON
lines to the pipe FD: progress, then one with the status. It ends when its parent is gone: its standard input
then reaches its end, for which a process of its own waits, and on Linux the kernel sends it SIGKILL besides.
"""

import ctypes
import json
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from harness.cell.cell import Cell
from harness.machine.failures import classify
from harness.machine.processes import guard_end_of_input
from harness.sweep.messages import Channel
from harness.sweep.process import TurnGroup

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """End this process and whatever it starts as soon as ``parent`` is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before we asked
        os._exit(1)
    guard_end_of_input()


def read_line(descriptor: int) -> bytes:
    """One line, byte by byte, so that nothing behind it is read."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            raise EOFError("no cell came")
        line += byte
    return line


def main(arguments: list[str]) -> int:
    descriptor, parent = int(arguments[0]), int(arguments[1])
    os.set_inheritable(descriptor, False)
    with os.fdopen(descriptor, "wb") as pipe:
        channel = Channel(pipe)
        order = json.loads(read_line(0))
        end_with(parent)
        try:
            from harness.sweep.job import measure_cell, time_cells

            if "in_turn" in order:
                cells = tuple(Cell.from_json(text) for text in order["in_turn"])
                measured = time_cells(TurnGroup(cells, order["rounds"], chosen=order["chosen"]), channel)
            else:
                measured = measure_cell(Cell.from_json(order["cell"]), Path(order["folder"]), channel)
            channel.send(status="ok", reason=None, measured=measured)
        except BaseException as error:  # noqa: BLE001 - whatever a cell raises, SystemExit too, is its result
            with suppress(OSError):  # the log may be on a full disk
                traceback.print_exc()
            status, reason = classify(error)
            channel.send(status=status, reason=reason, measured={})
    return 0
