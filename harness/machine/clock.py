"""Time as the harness takes it: after the device has finished, with the garbage collector off."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Clock:
    """Seconds, read after the device has finished everything that was asked of it."""

    wait: Callable[[], None]

    @classmethod
    def of(cls, device: torch.device) -> "Clock":
        if device.type == "cuda":
            return cls(lambda: torch.cuda.synchronize(device))
        return cls(lambda: None)

    def now(self) -> float:
        self.wait()
        return time.perf_counter_ns() / 1e9


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection inside; what is due is collected before."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
