"""A worker without torch that does what the cell's label says; its protocol is the real one's."""

import json
import os
import subprocess
import sys
import time

from harness.cell import Cell
from harness.worker import Channel, end_with, read_line


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
        channel.send(status="ok", reason=None, measured={"paired": dict.fromkeys(keys, pair)})
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
    if word == "say":
        print(f"worker {os.getpid()}", file=sys.stderr, flush=True)
        time.sleep(60)
    time.sleep(float(seconds or 0))
    channel.send(status="ok", reason=None, measured={"parameters": 7})


if __name__ == "__main__":
    main()
