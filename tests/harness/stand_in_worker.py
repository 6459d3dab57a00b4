"""A worker without torch that does what the cell's label says; its protocol is the real one's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.cell.cell import Cell
from harness.machine.failures import classify
from harness.sweep.messages import Channel
from harness.sweep.worker import end_with, read_line

Trick = Callable[[Channel, int, dict[str, Any]], None]
"""Misbehaves on the channel, its descriptor, and the order that came."""


def _fork_a_child_that_holds_the_pipe(channel: Channel, descriptor: int, order: dict[str, Any]) -> None:
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    os._exit(3)


def _ignore_signals(channel: Channel, descriptor: int, order: dict[str, Any]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)


def _report_for_ever(channel: Channel, descriptor: int, order: dict[str, Any]) -> None:
    while True:
        channel.progress(0.5, "again")


def _say_it_twice(channel: Channel, descriptor: int, order: dict[str, Any]) -> None:
    channel.send(status="ok", reason=None, measured={"parameters": 7})
    with suppress(BrokenPipeError):
        channel.send(status="error", reason="second thoughts", measured={"parameters": 8})
    time.sleep(60)


def _measured(**fields: Any) -> Trick:
    return lambda channel, descriptor, order: channel.send(status="ok", reason=None, measured=fields)


def _written(text: bytes, then_s: float = 60.0) -> Trick:
    def write(channel: Channel, descriptor: int, order: dict[str, Any]) -> None:
        os.write(descriptor, text)
        time.sleep(then_s)

    return write


def _store_noise(channel: Channel, descriptor: int, order: dict[str, Any]) -> None:
    """An artifact of 200 kB, stored and failing as the real worker's are."""
    import numpy as np

    from harness.images.arrays import write_npz

    cell, folder = Cell.from_json(order["cell"]), Path(order["folder"])
    noise = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8)
    name = f"artifacts/{cell.key}.npz"
    try:
        write_npz(folder / name, noise=noise)
    except OSError as error:
        status, reason = classify(error)
        channel.send(status=status, reason=reason, measured={})
    else:
        channel.send(status="ok", reason=None, measured={"parameters": 7, "artifacts": {"trace": name}})


def _scatter(channel: Channel, descriptor: int, order: dict[str, Any]) -> None:
    for apart in (False, True):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=apart)
    print("scattered", file=sys.stderr, flush=True)
    time.sleep(60)


def _interrupt_the_sweep(channel: Channel, descriptor: int, order: dict[str, Any]) -> None:
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(0.1)
    channel.send(status="ok", reason=None, measured={"parameters": 7})


TRICKS: dict[str, Trick] = {
    "leave": _fork_a_child_that_holds_the_pipe,
    "exit0": lambda channel, descriptor, order: os._exit(0),
    "deaf": _ignore_signals,
    "flood": _report_for_ever,
    "twice": _say_it_twice,
    "garbage": _written(b"Segmentation \xff fault\n"),
    "list": _written(b"[1, 2]\n"),
    "deep": _written(b"[" * 100_000 + b"\n"),
    "endless": _written(b"x" * 100_000),
    "unknown-status": _written(b'{"status": "fine", "reason": null}\n'),
    "no-reason": _written(b'{"status": "error", "reason": null}\n'),
    "no-share": _written(b'{"doing": "much"}\n'),
    "odd-field": _measured(no_such_field=1),
    "odd-type": _measured(parameters="many"),
    "not-a-number": _written(
        b'{"status": "ok", "reason": null, "measured": {"energy_per_image_j": NaN}}\n', 0.0
    ),
    "store": _store_noise,
    "scattered": _scatter,
    "interrupt": _interrupt_the_sweep,
}


def main() -> None:
    descriptor, parent = int(sys.argv[-2]), int(sys.argv[-1])
    os.set_inheritable(descriptor, False)
    channel = Channel(os.fdopen(descriptor, "wb"))
    order = json.loads(read_line(0))
    cell = Cell.from_json(order["cell"])
    end_with(parent)
    if "in_turn" in order and "--no-turns" in sys.argv:
        channel.send(status="error", reason="ValueError: no turns", measured={})
        return
    if "in_turn" in order:
        keys = [Cell.from_json(text).key for text in order["in_turn"]]
        pair = {"reference": keys[0], "batch": cell.batch, "seconds": [1.0], "reference_seconds": [1.0]}
        channel.send(status="ok", reason=None, measured={"turns": dict.fromkeys(keys, pair)})
        return
    word, _, seconds = cell.label.partition(" ")
    print("noise that belongs to nobody", flush=True)
    channel.progress(0.5, "half")
    if word == "fail":
        channel.send(status="error", reason="ValueError: on purpose", measured={})
        return
    if word == "crash":
        print("Fatal: something broke", file=sys.stderr, flush=True)
        os._exit(3)
    if word == "die":
        os.kill(os.getpid(), 9)
    if word == "family":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print(f"child {child.pid}", file=sys.stderr, flush=True)
        time.sleep(60)
    if word == "eat":
        held = bytearray(1 << 20)
        while True:
            held = held + held
    if word == "short":
        channel.send(status="oom", reason="MemoryError: at batch " + str(cell.batch), measured={})
        return
    if word in TRICKS:
        TRICKS[word](channel, descriptor, order)
        return
    if word == "say":
        print(f"worker {os.getpid()}", file=sys.stderr, flush=True)
        time.sleep(60)
    time.sleep(float(seconds or 0))
    channel.send(status="ok", reason=None, measured={"parameters": 7})


if __name__ == "__main__":
    main()
