"""Two fixed workloads timed beside every cell, so that a slower machine is not taken for slower code."""

import statistics
from collections.abc import Sequence

import torch

from harness.machine.clock import Clock, collector_paused

MATMUL_SIZE = 512
LOOP = 100_000
TIMES = 5


class Workloads:
    """``matmul``: one product of float32 [512, 512] matrices on the cell's device. ``python``: a loop of
    100,000 additions, which no device helps with."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self.clock = clock
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(MATMUL_SIZE, MATMUL_SIZE, generator=generator).to(device)
        self.samples: dict[str, list[float]] = {"matmul": [], "python": []}

    def sample(self) -> None:
        """Time both a few times, after one run of each that is not counted."""
        for name, work in (("matmul", self._multiply), ("python", self._loop)):
            work()
            with collector_paused():
                for _ in range(TIMES):
                    start = self.clock.now()
                    work()
                    self.samples[name].append(self.clock.now() - start)

    def medians(self) -> dict[str, float | None]:
        """Median seconds of each over all samples, those before and those after the cell."""
        return {name: _median(samples) for name, samples in self.samples.items()}

    def _multiply(self) -> None:
        torch.mm(self.matrix, self.matrix)

    def _loop(self) -> None:
        total = 0
        for number in range(LOOP):
            total += number


def _median(samples: Sequence[float]) -> float | None:
    return statistics.median(samples) if samples else None
