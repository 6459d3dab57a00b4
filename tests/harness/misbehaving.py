"""A plug-in for tests of the harness: ARPG's network, decoded by code that does what no strategy may."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from strategies.arpg import ARPG, ARPGNetwork
from strategies.decoding.decode import Rows
from strategies.decoding.plan import Plan
from strategies.decoding.requests import Ask, Decoding


def _print() -> None:
    print("loss: nan\n" * 1000, flush=True)
    os.write(1, b'{"status": "ok", "reason": null, "measured": {"parameters": 1}}\n')


def _write_to_every_descriptor() -> None:
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"garbage\n")
        except OSError:
            continue


def _leave_a_child() -> None:
    if os.fork() == 0:
        os.setsid()
        time.sleep(120)
        os._exit(0)


def _eat_memory() -> None:
    held = bytearray(1 << 20)
    while True:
        held = held + held


def _hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(120)


def _interrupt() -> None:
    raise KeyboardInterrupt


DEEDS: dict[str, Callable[[], object]] = {
    "print": _print,
    "garbage": _write_to_every_descriptor,
    "fork": _leave_a_child,
    "exit 0": lambda: os._exit(0),
    "exit 3": lambda: os._exit(3),
    "quit": lambda: sys.exit(0),
    "interrupt": _interrupt,
    "memory": _eat_memory,
    "hang": _hang,
    "read": lambda: sys.stdin.read(),
}


@dataclass(frozen=True)
class Misbehaving(ARPG):
    name: ClassVar[str] = "misbehaving"
    title: ClassVar[str] = "Misbehaving"
    paper: ClassVar[str] = "none"
    base: ClassVar[str | None] = "arpg"

    how: str = "print"

    def decode(self, network: ARPGNetwork, plan: Plan, rows: Rows) -> Decoding:
        DEEDS.get(self.how, lambda: None)()
        asking, answer = super().decode(network, plan, rows), None
        while True:
            try:
                ask = asking.send(answer)
            except StopIteration:
                return
            logits = ask.logits
            if self.how == "nan":
                logits = torch.full_like(logits, torch.nan)
            elif self.how == "places":
                logits = logits[:, :1]
            elif self.how == "batch":
                logits = logits[:1]
            answer = yield Ask(logits, ask.at)
